// The life of an exchange, tried at random: a client, a handler and an app do what they can do in any order, through live
// connections, and then nothing more. Whatever they have done, the exchange ends once, nothing looks whole that is not, and the
// connection is good for the next request, or closed.
//
// MODEL_RUNS=1000 runs more, MODEL_SEED=1 others, MODEL_KINDS=tcp,tls only these. A failure prints what to set to see it again.

import fc from 'fast-check'
import t from 'tap'
import { startersOf } from '../support/http1.ts'
import { commands } from './model/commands.ts'
import { type Setup, newModel } from './model/state.ts'
import { System } from './model/system.ts'

const { MODEL_RUNS, MODEL_SEED, MODEL_KINDS, MODEL_PATH, MODEL_REPLAY } = process.env

/** Milliseconds for one kind: what has not failed by then is good, what is shrunk by then is small enough. */
const LIMIT = MODEL_RUNS === undefined ? 60_000 : 3_600_000

const starters = startersOf(t)
const KINDS = { tcp: starters.tcp, tls: starters.tls, fallback: starters.fallback, h2c: starters.tcp, inject: starters.tcp }

/**
 * The end of a response to HTTP/1.0 is the end of the connection. Node does not show whether that is a good one: not over TLS, and
 * not below Node 24, where a client takes a reset for an end.
 */
const hasHttp10 = (kind: string): boolean => (kind === 'tcp' || kind === 'fallback') && Number(process.versions.node.split('.')[0]) > 22

const setupsOf = (kind: string): fc.Arbitrary<Setup> => fc.record({
  request: fc.constantFrom<Setup['request'][]>('chunked', 'none', 'length', 'longer', 'expect', ...(hasHttp10(kind) ? ['HTTP/1.0'] as const : [])),
  handler: fc.constantFrom('async', 'sync', 'generator'),
  slowHook: fc.boolean()
})

t.jobs = Object.keys(KINDS).length

for (const [kind, start] of Object.entries(KINDS)) {
  if (MODEL_KINDS !== undefined && !MODEL_KINDS.split(',').includes(kind)) continue
  t.test(kind, async (t) => {
    let count = 0
    let runs = 0
    const result = await fc.check(fc.asyncProperty(setupsOf(kind), commands(MODEL_REPLAY), async (setup, commands) => {
      const system = await System.start(kind, start, setup)
      try {
        const model = newModel(kind, setup)
        await fc.asyncModelRun(() => ({ model, real: system }), commands)
        await system.check(model)
      } finally {
        runs++
        count += system.commands
        system.stop()
      }
    }), {
      numRuns: Number(MODEL_RUNS ?? 60),
      seed: Number(MODEL_SEED ?? 19),
      path: MODEL_PATH,
      interruptAfterTimeLimit: LIMIT
    })
    t.comment(`${runs} runs, ${count} commands`)
    if (!result.failed) {
      t.pass('no run has failed')
      return
    }
    const [setup, sequence] = result.counterexample ?? []
    const replayPath = /replayPath="([^"]+)"/.exec(String(sequence))?.[1]
    t.fail(String((result.errorInstance as Error | null)?.message ?? 'interrupted'), {
      setup,
      sequence: String(sequence).replace(/ *\/\*.*/, ''),
      replay: `MODEL_KINDS=${kind} MODEL_SEED=${result.seed} MODEL_PATH=${result.counterexamplePath} MODEL_REPLAY=${replayPath}`
    })
  })
}
