// The tests that SECURITY.md names as evidence exist, in the files that it names.

import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'

const ROOT = join(__dirname, '../..')
const files = readdirSync(join(ROOT, 'test'), { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.test.ts'))

t.test('every test that SECURITY.md names', async (t) => {
  const security = readFileSync(join(ROOT, 'SECURITY.md'), 'utf8').replaceAll(/\s+/g, ' ')
  let named = 0
  // `file`: *title*, *the beginning of a title …*
  for (const [, name, titles] of security.matchAll(/`([a-z/-]+)`: (\*[^*]+\*(?:, \*[^*]+\*)*)/g)) {
    const file = files.find((path) => join('/', path).endsWith(join('/', `${name}.test.ts`)))
    t.ok(file, `${name}.test.ts`)
    const source = file === undefined ? '' : readFileSync(join(ROOT, 'test', file), 'utf8')
    for (const [, title] of titles.matchAll(/\*([^*]+)\*/g)) {
      named++
      t.ok(source.includes(title.replace(/ …$/, '')), `${name}: ${title}`)
    }
  }
  t.ok(named > 15, `${named} tests are named`)
})
