// npm run hunt -- [--seconds 60] [--seed 123] [--only crash|resources] [--only-case 4567] [--transport h2]
//
// Searches for faults that clients alone can cause in the process of an app. The crash hunt looks for clients that make the
// process exit, or leave something in it that never ends. The resource hunt looks for memory, time and descriptors beyond
// their bounds. Each hunt gets half of the seconds.

import { parseArgs } from 'node:util'
import { huntCrashes } from './crash/index.ts'
import { numbersOf } from './crash/problems.ts'
import { huntResources } from './resources/index.ts'

const HUNTS = ['crash', 'resources']

async function run (): Promise<number> {
  const { values } = parseArgs({
    options: { seconds: { type: 'string' }, seed: { type: 'string' }, only: { type: 'string' }, 'only-case': { type: 'string' }, transport: { type: 'string' } }
  })
  const cases = values['only-case']
  const only = cases === undefined && values.transport === undefined ? values.only : 'crash'
  if (only !== undefined && !HUNTS.includes(only)) throw new Error(`--only ${only}: must be ${HUNTS.join(' or ')}`)
  const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 32))
  // Cases given by number run once if there are no seconds, otherwise until one of them shows a problem.
  const seconds = Number(values.seconds ?? (cases === undefined ? 60 : 0)) / (only === undefined ? HUNTS.length : 1)
  console.log(`seed ${seed}, Node ${process.version}, ${process.platform}`)
  let problems = 0
  if (only !== 'resources') problems += await huntCrashes({ seed, seconds, transport: values.transport, onlyCases: cases === undefined ? undefined : numbersOf(cases) })
  if (only !== 'crash') problems += await huntResources({ seed, seconds })
  return problems === 0 ? 0 : 1
}

run().then((code) => { process.exitCode = code })
