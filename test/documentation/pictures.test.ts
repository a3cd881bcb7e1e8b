// The pictures of the documentation are those that the script draws, and show every state. `npm run pictures` writes them.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { PICTURES, stepsOf } from '../../docs/pictures/draw.ts'
import { record, terminal } from '../../docs/pictures/terminal.ts'

const drawings: Record<string, () => string | Promise<string>> = { ...PICTURES, terminal: async () => terminal(await record()) }

for (const [name, draw] of Object.entries(drawings)) {
  t.test(`${name}.svg`, async (t) => {
    const path = join(__dirname, `../../docs/pictures/${name}.svg`)
    const drawn = await draw()
    if (process.env.PICTURES === 'write') writeFileSync(path, drawn)
    t.equal(readFileSync(path, 'utf8'), drawn)
    t.notMatch(drawn, /NaN|undefined/)
    t.match(drawn, 'prefers-color-scheme: dark')
    const rights = [...drawn.matchAll(/\bx[12]?="([-\d.]+)"(?: y="[\d.]+" width="([\d.]+)")?/g)].map(([, x, width = 0]) => Number(x) + Number(width))
    t.ok(Math.min(...rights) >= 0 && Math.max(...rights) <= 900, 'everything is inside')
  })
}

t.test('the life of an exchange has all events that change its response', async (t) => {
  const drawn = PICTURES.life()
  for (const { events } of stepsOf('response')) t.match(drawn, events.join(' · '))
  t.match(stepsOf('response'), [{ from: 'none', to: 'written', events: ['head written'] }, { from: 'written', to: 'begun', events: ['first byte'] }])
})
