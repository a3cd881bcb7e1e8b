// One child process from its start to its end: runs cases in it, and says what was wrong.

import { Random } from '../../support/random.ts'
import { type Case, caseOf } from './case.ts'
import { Child } from './child.ts'
import { Connection, type Dial, dialer } from './connection.ts'
import { type Surroundings, runHttp1 } from './http1-client.ts'
import { isAnsweredOverHttp2, runHttp2 } from './http2-client.ts'
import { ANSWER_LIMIT, BALANCE_LIMIT, CASE_LIMIT, CENSUS_LIMIT, CLOSE_LIMIT, TimeLimitError, comesWithin, within } from './limits.ts'
import { type OrdinaryCase, ordinaryCaseOf } from './ordinary/case.ts'
import { compareOrdinary } from './ordinary/client.ts'
import { isComparison, isHttp2, tcpOrTls } from './kinds.ts'
import type { Profile } from './profile.ts'

/** Cases under way at once. */
const AT_ONCE = 24
/** How long after its end a case may still be behind a crash. */
const AFTERMATH = 600

export interface Problem {
  what: string
  /** One of them is behind it. */
  cases: number[]
  /** If it is known which. */
  case: Case | OrdinaryCase | null
  profile: Profile
}

export interface Run {
  problems: Problem[]
  /** The cases that have ended. */
  done: (Case | OrdinaryCase)[]
  /** Those that a crash, or the end of the app, has left over. */
  left: number[]
}

export async function runChild (seed: number, profile: Profile, numbers: readonly number[]): Promise<Run> {
  const child = await Child.start(seed, profile)
  const run: Run = { problems: [], done: [], left: [...numbers] }
  const underWay = new Set<number>()
  let closing = false
  let becomeBusy = (): void => {}
  const busy = new Promise<void>((resolve) => { becomeBusy = resolve })
  // One case alone has the app to the end.
  const closesBusy = profile.closesBusy && numbers.length > 1
  // When it closes while cases are under way: with so many left.
  const closesAt = closesBusy ? 1 + new Random(seed, numbers[0]).below(numbers.length - 1) : 0
  try {
    const casesDone = Promise.all(Array.from({ length: AT_ONCE }, async () => {
      while (run.left.length > closesAt && child.isAlive) await runCase(run.left.shift()!)
    }))
    if (closesBusy) await Promise.race([casesDone, busy])
    else await casesDone
    if (child.isAlive) await finish()
    await casesDone
  } finally {
    if (child.isAlive) await child.kill()
  }
  if (child.crash !== null && child.crash !== 'killed') run.problems.push({ what: child.crash, cases: [...underWay], case: null, profile })
  if (closesBusy && child.crash === null) run.left = []
  for (const id of child.smuggled) {
    const number = Number.parseInt(id)
    run.problems.push({ what: 'a request was smuggled', cases: [number], case: caseOf(seed, number, profile), profile })
  }
  return run

  async function runCase (number: number): Promise<void> {
    const one = caseNumbered(number)
    underWay.add(number)
    if (run.left.length <= closesAt) becomeBusy()
    const wrong = await watch(one)
    // Of a process that is dying everything is wrong, and its end may be told last.
    if (wrong.length > 0) await comesWithin(AFTERMATH, child.exited)
    if (!child.isAlive) return
    setTimeout(() => { if (child.isAlive) underWay.delete(number) }, AFTERMATH)
    run.done.push(one)
    // An app that closes owes nobody an answer; the balance of all its requests is asked for at its end.
    if (closing) return
    for (const what of wrong) run.problems.push({ what: `${what} (${profile.transport})`, cases: [number], case: one, profile })
  }

  /** @returns what is wrong */
  async function watch (one: Case | OrdinaryCase): Promise<string[]> {
    try {
      return await within(CASE_LIMIT, 'case', Promise.race(['requests' in one ? compare(one) : throughItsClient(one), child.exited.then(() => [])]))
    } catch (error) {
      if (child.isAlive) return [error instanceof TimeLimitError ? error.message : `the client failed: ${(error as Error).stack}`]
      return []
    }
  }

  async function throughItsClient (one: Case): Promise<string[]> {
    const isInChild = profile.transport === 'memory'
    const dial = dialer(profile.transport, child.address)
    const surroundings: Surroundings = { dial, authorities: child.authorities, balance: (number) => child.ask({ ask: 'balance', case: number }) }
    const wrong = isInChild ? await child.ask({ ask: 'run', case: one.number }) : one.client === 'http2' ? await runHttp2(one, surroundings) : await runHttp1(one, surroundings)
    wrong.push(...await child.ask({ ask: 'balance', case: one.number }))
    if (!await isAnswered(dial, isHttp2(profile.transport), `${one.number}.new`) && child.isAlive) wrong.push('the next client is not answered')
    return wrong
  }

  async function compare (one: OrdinaryCase): Promise<string[]> {
    const transport = tcpOrTls(profile.transport)
    const wrong = await compareOrdinary(one, {
      dial: dialer(transport, child.address),
      dialPlain: dialer(transport, child.plainAddress),
      differences: (prefix, requests) => child.ask({ ask: 'differences', prefix, requests })
    })
    return wrong.concat(await child.ask({ ask: 'balance', case: one.number }))
  }

  /** The census, then the end of the app and of its process. */
  async function finish (): Promise<void> {
    const wrong: string[] = []
    closing = true
    try {
      if (!closesBusy) wrong.push(...await within(CENSUS_LIMIT * 2, 'census', child.ask({ ask: 'census' })))
      wrong.push(...await within(CLOSE_LIMIT + BALANCE_LIMIT, 'app.close()', child.ask({ ask: 'close' })))
      if (child.isAlive || child.crash === null) wrong.push(...await child.leaves())
    } catch (error) {
      if (!(error instanceof TimeLimitError)) throw error
      wrong.push(error.message)
    }
    for (const what of wrong) {
      const one = caseIn(what)
      run.problems.push({ what: `${what} (${profile.transport})`, cases: one === null ? [...numbers] : [one.number], case: one, profile })
    }
  }

  /** The case of the request that a problem names. */
  function caseIn (what: string): Case | OrdinaryCase | null {
    const id = what.match(/\((\d+)\.[^)]*\)$/)
    if (id === null) return null
    return caseNumbered(Number(id[1]))
  }

  function caseNumbered (number: number): Case | OrdinaryCase {
    return isComparison(profile.transport) ? ordinaryCaseOf(seed, number) : caseOf(seed, number, profile)
  }
}

async function isAnswered (dial: Dial, overHttp2: boolean, id: string): Promise<boolean> {
  try {
    return await within(ANSWER_LIMIT, 'answer', (overHttp2 ? isAnsweredOverHttp2 : isAnsweredOverHttp1)(dial, id))
  } catch {
    return false
  }
}

async function isAnsweredOverHttp1 (dial: Dial, id: string): Promise<boolean> {
  const connection = new Connection(await dial()).read()
  connection.send(`GET /pong HTTP/1.1\r\nHost: a\r\nX-Id: ${id}\r\nConnection: close\r\n\r\n`)
  try {
    return await connection.sees(`pong-${id}.`)
  } finally {
    connection.leave()
  }
}
