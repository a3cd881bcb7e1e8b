// What the README and package.json say about running this, and what `npm test` prints.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import semver from 'semver'
import t from 'tap'

const ROOT = join(__dirname, '../..')
const readme = readFileSync(join(ROOT, 'README.md'), 'utf8')
const description = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))

t.test('the README names the Node versions of engines', async (t) => {
  const install = readme.slice(readme.indexOf('\n## Install\n')).replaceAll(/\s+/g, ' ')
  const [, major, lowest, next] = /Node (\d+) \((\d+\.\d+) or later\) or Node (\d+\.\d+) or later/.exec(install)!
  t.ok(lowest.startsWith(`${major}.`))
  t.equal(description.engines.node, `^${lowest}.0 || >=${next}.0`)
  t.ok(semver.satisfies(process.version, description.engines.node))
})

t.test('package.json has what npm shows', async (t) => {
  for (const field of ['description', 'license']) t.type(description[field], 'string')
  t.ok(description.keywords.includes('fastify-plugin'))
})

async function print (tap: string): Promise<string[]> {
  const { failures } = await import(pathToFileURL(join(ROOT, 'test/failures.mjs')).href)
  const printed: string[] = []
  for await (const line of failures(tap.split('\n'))) printed.push(line)
  return printed
}

t.test('without a terminal, npm test prints failures and a summary', async (t) => {
  const printed = await print(`TAP version 14
1..2
# Subtest: test/a.test.ts
    # Subtest: works
        ok 1 - should be equal
        1..1
    ok 1 - works # time=1ms

    # Subtest: fails
        ok 1 - should be equal
          ---
          at: somewhere
          ...
        not ok 2 - should be equal
          ---
          diff: |
            --- expected
            +++ actual

            -1
            +2
          ...
        not ok 3 - not yet # TODO later
          ---
          at: elsewhere
          ...
        1..3
    not ok 2 - fails # time=1ms
    1..2
not ok 1 - test/a.test.ts # time=2ms
  ---
  exitCode: 1
  ...
ok 2 - test/b.test.ts # time=2ms
# { total: 4, pass: 2, fail: 1, todo: 1 }
# time=5ms`)
  t.strictSame(printed, `        not ok 2 - should be equal
          ---
          diff: |
            --- expected
            +++ actual

            -1
            +2
          ...
    not ok 2 - fails # time=1ms
not ok 1 - test/a.test.ts # time=2ms
  ---
  exitCode: 1
  ...
# { total: 4, pass: 2, fail: 1, todo: 1 }
# time=5ms`.split('\n'))
})
