// The resource hunt. It measures what hostile clients cost the server in each state of an exchange, and in floods of
// requests. The first round always runs. Further rounds, with other numbers of clients, run until the time is up.

import { Random } from '../../support/random.ts'
import { type FloodCost, measureFlood } from './flood.ts'
import { FLOODS, type Flood } from './floods.ts'
import { type Cost, type Measured, PlainServers, measure } from './measure.ts'
import { EXCLUDED } from './bounds.ts'
import { type FloodRow, type StateRow, floodTable, judgeFlood, judgeState, stateTable } from './report.ts'
import { ENDINGS, type Ending, STATES, type State } from './states.ts'

/** How many servers with the plugin are measured at the same time. */
const LANES = 3
const FIRST_CLIENTS = 12
const MAX_CLIENTS = 60
/** Milliseconds of each flood in the first round, and in later ones. */
const FIRST_FLOOD = 600
const LONG_FLOOD = 5000

export async function huntResources ({ seed, seconds }: { seed: number, seconds: number }): Promise<number> {
  const hunt = new Hunt(seed, Date.now() + seconds * 1000)
  await hunt.run()
  return hunt.report()
}

class Hunt {
  private readonly random: Random
  private readonly end: number
  private readonly states = new Map<State, StateRow>()
  private readonly floods = new Map<Flood, FloodRow>()
  private readonly problems = new Map<string, number>()
  private rounds = 0

  constructor (seed: number, end: number) {
    this.random = new Random(seed)
    this.end = end
  }

  async run (): Promise<void> {
    for (; this.rounds === 0 || this.hasTime; this.rounds++) {
      await this.measureStates()
      await this.measureFloods()
    }
  }

  report (): number {
    console.log(`\n${this.rounds} rounds\n\n${stateTable([...this.states.values()])}\n\n${floodTable([...this.floods.values()])}\n`)
    for (const [name, why] of EXCLUDED) console.log(`EXCLUDED: ${name}: ${why}`)
    for (const [problem, times] of this.problems) console.log(`FAILED: ${problem}${times > 1 ? ` (${times} times)` : ''}`)
    return this.problems.size
  }

  private get hasTime (): boolean {
    return Date.now() < this.end
  }

  /** The first round is completed even when the time is up. */
  private get mayStart (): boolean {
    return this.rounds === 0 || this.hasTime
  }

  private async measureStates (): Promise<void> {
    const { random, rounds } = this
    const left = shuffle(random, STATES)
    const clients = rounds === 0 ? FIRST_CLIENTS : 1 + random.below(MAX_CLIENTS)
    const plainServers = new PlainServers()
    const plain = new Map<State, Promise<Cost | null>>()
    let before: Promise<unknown> = Promise.resolve()
    for (const state of left) {
      const cost = before.then(() => state.hasPlain && this.mayStart ? plainServers.measure(state, clients, random) : null).catch(() => null)
      plain.set(state, cost)
      before = cost
    }
    await Promise.all(Array.from({ length: LANES }, async () => {
      for (let state; this.mayStart && (state = left.pop()) !== undefined;) {
        try {
          const ending = rounds === 0 ? state.ending : random.pick(ENDINGS)
          this.addState(await this.measureState(state, clients * state.times, ending, plain.get(state)!))
        } catch (error) {
          this.addProblem(`${state.name}: ${(error as Error).message}`)
        }
      }
    }))
    await before
    await plainServers.close()
  }

  /** Measures a second time if there is a problem: a fault occurs again, but noise does not. */
  private async measureState (state: State, clients: number, ending: Ending, plain: Promise<Cost | null>): Promise<StateRow> {
    const row = async (): Promise<StateRow> => ({ state, measured: await measure(state, clients, ending, this.random), plain: await plain })
    const first = await row()
    return judgeState(first).length === 0 ? first : row()
  }

  private async measureFloods (): Promise<void> {
    const { random, rounds } = this
    for (const flood of shuffle(random, FLOODS)) {
      if (!this.hasTime && !(rounds === 0 && flood.alwaysRuns)) continue
      const milliseconds = rounds === 0 ? FIRST_FLOOD : LONG_FLOOD
      const seed = random.below(2 ** 31)
      try {
        const [duplex, plain] = await Promise.all([measureFlood(flood, 'duplex', milliseconds, seed), measureFlood(flood, 'plain', milliseconds, seed)])
        this.addFlood({ flood, duplex, plain })
      } catch (error) {
        this.addProblem(`flood, ${flood.name}: ${(error as Error).message}`)
      }
    }
  }

  private addState (row: StateRow): void {
    for (const problem of judgeState(row)) this.addProblem(`${row.state.name}: ${problem}`)
    const { state, measured, plain } = row
    const previous = this.states.get(state)
    const worst: Measured = previous === undefined ? measured : { ...higher(previous.measured, measured), left: { ...higher(previous.measured.left, measured.left) } }
    this.states.set(state, { state, measured: worst, plain: plain === null ? previous?.plain ?? null : higher(previous?.plain ?? plain, plain) })
  }

  private addFlood (row: FloodRow): void {
    for (const problem of judgeFlood(row)) this.addProblem(`flood, ${row.flood.name}: ${problem}`)
    const { flood, duplex, plain } = row
    const previous = this.floods.get(flood)
    const worst = (a: FloodCost | undefined, b: FloodCost): FloodCost => ({ ...higher(a ?? b, b), rate: Math.min(a?.rate ?? b.rate, b.rate) })
    this.floods.set(flood, { flood, duplex: worst(previous?.duplex, duplex), plain: worst(previous?.plain, plain) })
  }

  private addProblem (problem: string): void {
    console.log(`FAILED: ${problem}`)
    this.problems.set(problem, (this.problems.get(problem) ?? 0) + 1)
  }
}

/** For each key, the higher of the two numbers. */
function higher<T extends object> (a: T, b: T): T {
  const result = { ...b } as Record<string, unknown>
  for (const [key, value] of Object.entries(a)) {
    if (typeof value === 'number') result[key] = Math.max(value, result[key] as number)
  }
  return result as T
}

function shuffle<T> (random: Random, values: readonly T[]): T[] {
  return values.map((value) => ({ value, key: random.next() })).sort((a, b) => a.key - b.key).map(({ value }) => value)
}
