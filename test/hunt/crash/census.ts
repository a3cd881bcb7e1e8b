// Checks that an app still admits `maxExchanges` exchanges. An exchange that was never released would count as open.

import http2 from 'node:http2'
import { type Audit, CENSUS } from './audit.ts'
import { Connection, type Dial } from './connection.ts'
import { CENSUS_LIMIT, settlesWithin } from './limits.ts'

/** @returns the problems */
export async function takeCensus (audit: Audit, dial: Dial, overHttp2: boolean, total: number): Promise<string[]> {
  const closers: (() => void)[] = []
  const opened = overHttp2 ? openStreams(dial, total, closers) : openConnections(dial, total, closers)
  const isCounted = await settlesWithin(CENSUS_LIMIT, Promise.all([opened, audit.waitForCensus(total)]))
  const { admitted, refused, failed } = audit.census
  for (const close of closers) close()
  const problems: string[] = []
  if (refused > 0) problems.push('maxExchanges counts exchanges that have ended')
  if (!isCounted) problems.push(`census: of ${total} exchanges ${admitted} were admitted, ${refused} refused, ${failed} failed, and the others got no answer`)
  return problems
}

async function openConnections (dial: Dial, total: number, closers: (() => void)[]): Promise<void> {
  for (let n = 0; n < total; n++) {
    const connection = new Connection(await dial()).read()
    closers.push(() => connection.leave())
    connection.send(`POST /hold HTTP/1.1\r\nHost: a\r\nX-Id: ${CENSUS}${n}\r\nTransfer-Encoding: chunked\r\n\r\n`)
  }
}

async function openStreams (dial: Dial, total: number, closers: (() => void)[]): Promise<void> {
  const socket = await dial()
  const session = http2.connect('http://a', { createConnection: () => socket as never })
  session.on('error', () => {})
  closers.push(() => { session.destroy() })
  for (let n = 0; n < total; n++) {
    const stream = session.request({ ':method': 'POST', ':path': '/hold', 'x-id': `${CENSUS}${n}` }, { endStream: false })
    stream.on('error', () => {}).resume()
  }
}
