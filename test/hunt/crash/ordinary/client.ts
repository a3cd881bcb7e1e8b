// A client that does the same to both apps, and compares the results.

import { Connection, type Dial, pause } from '../connection.ts'
import { settlesWithin } from '../limits.ts'
import type { OrdinaryCase, OrdinaryRequest } from './case.ts'

/** A connection that is not closed within this limit counts as open. */
const OUTCOME_LIMIT = 1200
/** A difference counts only if it occurs in all tries. */
const TRIES = 3
const STUCK_MS = 40

export interface AppPair {
  dial: Dial
  dialPlain: Dial
  /** Differences between what the hooks of the two apps have seen of the first requests whose ids have the prefix. */
  differences: (prefix: string, requests: number) => Promise<string[]>
}

/** @returns the differences that the plugin makes */
export async function compareOrdinary (testCase: OrdinaryCase, { dial, dialPlain, differences }: AppPair): Promise<string[]> {
  let problems: string[] = []
  const first = testCase.requests.indexOf('duplex')
  // Requests after an exchange wait for it, whereas Node alone reads on. A timeout may come first.
  const allAnswered = testCase.act === 'complete' && !testCase.requests.includes('wait')
  const compared = allAnswered || first < 0 ? testCase.requests.length : first
  // Nor does a request after an exchange begin before its end. Two slow requests in sequence exceed the limit.
  const inTime = first < 0 || testCase.requests.lastIndexOf('wait') < first
  for (let tried = 0; tried < TRIES; tried++) {
    const prefix = `${testCase.number}.${tried}-`
    const connections = [new Connection(await dial()), new Connection(await dialPlain())]
    const [withPlugin, without] = await Promise.all(connections.map((connection) => play(testCase, connection, prefix)))
    problems = (await differences(prefix, compared)).map((what) => `before the client leaves, ${what}`)
    for (const connection of connections) connection.leave()
    problems.push(...await differences(prefix, compared))
    if (inTime && withPlugin !== without) problems.push(`with the plugin the connection ${withPlugin}, without it ${without}`)
    if (problems.length === 0) break
  }
  return problems.map((what) => `ordinary, ${testCase.act}: ${what}`)
}

/** Plays the case. @returns what happens to the connection. A client that does not read cannot see its end. */
async function play (testCase: OrdinaryCase, connection: Connection, prefix: string): Promise<string> {
  if (!testCase.act.startsWith('stuck')) connection.read()
  await send(testCase, connection, prefix)
  await pause(testCase.delay)
  if (testCase.act === 'reset') connection.reset()
  if (testCase.act === 'leave') connection.leave()
  if (testCase.act === 'half-close') connection.endSide()
  if (testCase.act === 'stuck, then reads') {
    await pause(STUCK_MS)
    connection.read()
  }
  const isClosed = await settlesWithin(OUTCOME_LIMIT, connection.ended)
  return `${isClosed ? 'is closed' : 'stays open'}${testCase.act === 'complete' ? ` after ${connection.responses} responses` : ''}`
}

async function send (testCase: OrdinaryCase, connection: Connection, prefix: string): Promise<void> {
  const all = testCase.requests.map((request, n) => bytesOf(request, `${prefix}${n}`))
  const last = all.at(-1)!
  all[all.length - 1] = last.slice(0, Math.ceil(testCase.cut * last.length))
  if (testCase.pipelined || testCase.act.startsWith('stuck')) {
    connection.send(all.join(''))
    return
  }
  for (const [n, bytes] of all.entries()) {
    connection.send(bytes)
    // The last request may be incomplete, or the client may leave during it.
    if (n < all.length - 1) await settlesWithin(OUTCOME_LIMIT, connection.receives(`x-mark: ${prefix}${n}\r`))
  }
}

function bytesOf (request: OrdinaryRequest, id: string): string {
  const lines = `Host: a\r\nX-Id: ${id}\r\n`
  if (request === 'body') return `POST /body HTTP/1.1\r\n${lines}Content-Type: text/plain\r\nContent-Length: 11\r\n\r\nhello world`
  if (request === 'unread' || request === 'duplex') return `POST /${request} HTTP/1.1\r\n${lines}Content-Type: application/octet-stream\r\nContent-Length: 11\r\n\r\nhello world`
  return `GET /${request} HTTP/1.1\r\n${lines}\r\n`
}
