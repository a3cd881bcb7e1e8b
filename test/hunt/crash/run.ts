// Runs one child process from its start to its end: runs cases in it, and reports the problems.

import { Random } from '../../support/random.ts'
import { type Case, caseOf } from './case.ts'
import { Child } from './child.ts'
import { Connection, type Dial, dialer } from './connection.ts'
import { type Environment, runHttp1 } from './http1-client.ts'
import { isAnsweredOverHttp2, runHttp2 } from './http2-client.ts'
import { ANSWER_LIMIT, AUDIT_LIMIT, CASE_LIMIT, CENSUS_LIMIT, CLOSE_LIMIT, TimeLimitError, settlesWithin, within } from './limits.ts'
import { type OrdinaryCase, ordinaryCaseOf } from './ordinary/case.ts'
import { compareOrdinary } from './ordinary/client.ts'
import { isComparison, isHttp2, tcpOrTls } from './kinds.ts'
import type { Profile } from './profile.ts'

/** How many cases run at the same time. */
const AT_ONCE = 24
/** How long after its end a case may still be the cause of a crash. */
const AFTERMATH = 600

export interface Problem {
  what: string
  /** One of these cases is the cause. */
  cases: number[]
  /** The case that is the cause, if it is known. */
  case: Case | OrdinaryCase | null
  profile: Profile
}

export interface Run {
  problems: Problem[]
  /** The cases that have finished. */
  done: (Case | OrdinaryCase)[]
  /** The cases that did not run, because of a crash or because the app was closed. */
  left: number[]
}

export async function runChild (seed: number, profile: Profile, numbers: readonly number[]): Promise<Run> {
  const child = await Child.start(seed, profile)
  const run: Run = { problems: [], done: [], left: [...numbers] }
  const running = new Set<number>()
  let closing = false
  let resolveBusy = (): void => {}
  const busy = new Promise<void>((resolve) => { resolveBusy = resolve })
  // A single case is run to its end.
  const closesBusy = profile.closesBusy && numbers.length > 1
  // The app is closed when so many cases are left.
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
  if (child.crash !== null && child.crash !== 'killed') run.problems.push({ what: child.crash, cases: [...running], case: null, profile })
  if (closesBusy && child.crash === null) run.left = []
  for (const id of child.smuggled) {
    const number = Number.parseInt(id)
    run.problems.push({ what: 'a request was smuggled', cases: [number], case: caseOf(seed, number, profile), profile })
  }
  return run

  async function runCase (number: number): Promise<void> {
    const testCase = caseNumbered(number)
    running.add(number)
    if (run.left.length <= closesAt) resolveBusy()
    const problems = await watch(testCase)
    // A dying process causes problems of all kinds, before the parent notices its end.
    if (problems.length > 0) await settlesWithin(AFTERMATH, child.exited)
    if (!child.isAlive) return
    setTimeout(() => { if (child.isAlive) running.delete(number) }, AFTERMATH)
    run.done.push(testCase)
    // An app that is being closed need not answer. Its open requests are checked at its end.
    if (closing) return
    for (const what of problems) run.problems.push({ what: `${what} (${profile.transport})`, cases: [number], case: testCase, profile })
  }

  /** @returns the problems */
  async function watch (testCase: Case | OrdinaryCase): Promise<string[]> {
    try {
      return await within(CASE_LIMIT, 'case', Promise.race(['requests' in testCase ? compare(testCase) : play(testCase), child.exited.then(() => [])]))
    } catch (error) {
      if (child.isAlive) return [error instanceof TimeLimitError ? error.message : `the client failed: ${(error as Error).stack}`]
      return []
    }
  }

  async function play (testCase: Case): Promise<string[]> {
    const isInChild = profile.transport === 'memory'
    const dial = dialer(profile.transport, child.address)
    const environment: Environment = { dial, authorities: child.authorities, findOpen: (number) => child.ask({ ask: 'open requests', case: number }) }
    const problems = isInChild ? await child.ask({ ask: 'run', case: testCase.number }) : testCase.client === 'http2' ? await runHttp2(testCase, environment) : await runHttp1(testCase, environment)
    problems.push(...await child.ask({ ask: 'open requests', case: testCase.number }))
    if (!await isAnswered(dial, isHttp2(profile.transport), `${testCase.number}.new`) && child.isAlive) problems.push('the next client is not answered')
    return problems
  }

  async function compare (testCase: OrdinaryCase): Promise<string[]> {
    const transport = tcpOrTls(profile.transport)
    const problems = await compareOrdinary(testCase, {
      dial: dialer(transport, child.address),
      dialPlain: dialer(transport, child.plainAddress),
      differences: (prefix, requests) => child.ask({ ask: 'differences', prefix, requests })
    })
    return problems.concat(await child.ask({ ask: 'open requests', case: testCase.number }))
  }

  /** Takes the census, closes the app, and waits for the exit of the process. */
  async function finish (): Promise<void> {
    const problems: string[] = []
    closing = true
    try {
      if (!closesBusy) problems.push(...await within(CENSUS_LIMIT * 2, 'census', child.ask({ ask: 'census' })))
      problems.push(...await within(CLOSE_LIMIT + AUDIT_LIMIT, 'app.close()', child.ask({ ask: 'close' })))
      if (child.isAlive || child.crash === null) problems.push(...await child.waitForExit())
    } catch (error) {
      if (!(error instanceof TimeLimitError)) throw error
      problems.push(error.message)
    }
    for (const what of problems) {
      const testCase = caseIn(what)
      run.problems.push({ what: `${what} (${profile.transport})`, cases: testCase === null ? [...numbers] : [testCase.number], case: testCase, profile })
    }
  }

  /** The case of the request whose id the problem contains. */
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
    return await connection.receives(`pong-${id}.`)
  } finally {
    connection.leave()
  }
}
