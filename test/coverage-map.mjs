// What `npm test` must cover: all of lib/, by whichever test. dist/ is the same code again.

import { readdirSync } from 'node:fs'
import { join } from 'node:path'

const files = readdirSync('lib', { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.path ?? entry.parentPath, entry.name))

export default () => files
