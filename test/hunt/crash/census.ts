// Whether an app still lets in as many exchanges as it may have: each that was never released takes the place of one.

import http2 from 'node:http2'
import { type Books, CENSUS } from './books.ts'
import { Connection, type Dial } from './connection.ts'
import { CENSUS_LIMIT, comesWithin } from './limits.ts'

/** @returns what is wrong */
export async function census (books: Books, dial: Dial, overHttp2: boolean, most: number): Promise<string[]> {
  const closers: (() => void)[] = []
  const opened = overHttp2 ? openStreams(dial, most, closers) : openConnections(dial, most, closers)
  const isCounted = await comesWithin(CENSUS_LIMIT, Promise.all([opened, books.counted(most)]))
  const { held, refused, failed } = books.census
  for (const close of closers) close()
  const wrong: string[] = []
  if (refused > 0) wrong.push('places of maxExchanges are taken by nobody')
  if (!isCounted) wrong.push(`census: of ${most} exchanges ${held} were let in, ${refused} refused, ${failed} failed, and the others got no answer`)
  return wrong
}

async function openConnections (dial: Dial, most: number, closers: (() => void)[]): Promise<void> {
  for (let n = 0; n < most; n++) {
    const connection = new Connection(await dial()).read()
    closers.push(() => connection.leave())
    connection.send(`POST /hold HTTP/1.1\r\nHost: a\r\nX-Id: ${CENSUS}${n}\r\nTransfer-Encoding: chunked\r\n\r\n`)
  }
}

async function openStreams (dial: Dial, most: number, closers: (() => void)[]): Promise<void> {
  const socket = await dial()
  const session = http2.connect('http://a', { createConnection: () => socket as never })
  session.on('error', () => {})
  closers.push(() => { session.destroy() })
  for (let n = 0; n < most; n++) {
    const stream = session.request({ ':method': 'POST', ':path': '/hold', 'x-id': `${CENSUS}${n}` }, { endStream: false })
    stream.on('error', () => {}).resume()
  }
}
