// A client that does the same to both apps, and compares what becomes of it.

import { Connection, type Dial, pause } from '../connection.ts'
import { comesWithin } from '../limits.ts'
import type { OrdinaryCase, OrdinaryRequest } from './case.ts'

/** How long the server has to close a connection, beyond which it is said to stay open. */
const OUTCOME_LIMIT = 1200
/** What differs by chance does not differ so often. */
const TRIES = 3
const STUCK_MS = 40

export interface Both {
  dial: Dial
  dialPlain: Dial
  /** What the hooks of the two apps have seen otherwise, of so many requests whose ids begin so. */
  differences: (prefix: string, requests: number) => Promise<string[]>
}

/** @returns what is otherwise with the plugin */
export async function compareOrdinary (one: OrdinaryCase, { dial, dialPlain, differences }: Both): Promise<string[]> {
  let wrong: string[] = []
  const first = one.requests.indexOf('duplex')
  // What is behind an exchange waits for it, where plain Node reads on: until a timeout, for example.
  const allAnswered = one.act === 'complete' && !one.requests.includes('wait')
  const compared = allAnswered || first < 0 ? one.requests.length : first
  // Nor does it begin before: two that wait, one after the other, take longer than the server has.
  const inTime = first < 0 || one.requests.lastIndexOf('wait') < first
  for (let tried = 0; tried < TRIES; tried++) {
    const prefix = `${one.number}.${tried}-`
    const connections = [new Connection(await dial()), new Connection(await dialPlain())]
    const [here, there] = await Promise.all(connections.map((connection) => outcome(one, connection, prefix)))
    wrong = (await differences(prefix, compared)).map((what) => `with the client there, ${what}`)
    for (const connection of connections) connection.leave()
    wrong.push(...await differences(prefix, compared))
    if (inTime && here !== there) wrong.push(`with the plugin the connection ${here}, without it ${there}`)
    if (wrong.length === 0) break
  }
  return wrong.map((what) => `ordinary, ${one.act}: ${what}`)
}

/** What becomes of the connection, as the client sees it. Who does not read sees nothing. */
async function outcome (one: OrdinaryCase, connection: Connection, prefix: string): Promise<string> {
  if (!one.act.startsWith('stuck')) connection.read()
  await send(one, connection, prefix)
  await pause(one.delay)
  if (one.act === 'reset') connection.reset()
  if (one.act === 'leave') connection.leave()
  if (one.act === 'half-close') connection.half()
  if (one.act === 'stuck, then reads') {
    await pause(STUCK_MS)
    connection.read()
  }
  const isClosed = await comesWithin(OUTCOME_LIMIT, connection.ended)
  return `${isClosed ? 'is closed' : 'stays open'}${one.act === 'complete' ? ` after ${connection.responses} responses` : ''}`
}

async function send (one: OrdinaryCase, connection: Connection, prefix: string): Promise<void> {
  const all = one.requests.map((request, n) => bytesOf(request, `${prefix}${n}`))
  const last = all.at(-1)!
  all[all.length - 1] = last.slice(0, Math.ceil(one.cut * last.length))
  if (one.pipelined || one.act.startsWith('stuck')) {
    connection.send(all.join(''))
    return
  }
  for (const [n, bytes] of all.entries()) {
    connection.send(bytes)
    // The last may be a part, or what the client leaves in.
    if (n < all.length - 1) await comesWithin(OUTCOME_LIMIT, connection.sees(`x-mark: ${prefix}${n}\r`))
  }
}

function bytesOf (request: OrdinaryRequest, id: string): string {
  const lines = `Host: a\r\nX-Id: ${id}\r\n`
  if (request === 'body') return `POST /body HTTP/1.1\r\n${lines}Content-Type: text/plain\r\nContent-Length: 11\r\n\r\nhello world`
  if (request === 'unread' || request === 'duplex') return `POST /${request} HTTP/1.1\r\n${lines}Content-Type: application/octet-stream\r\nContent-Length: 11\r\n\r\nhello world`
  return `GET /${request} HTTP/1.1\r\n${lines}\r\n`
}
