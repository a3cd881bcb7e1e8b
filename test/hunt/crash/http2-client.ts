// An HTTP/2 client that plays a case: it opens streams, and then does something to them or to their session.

import { once } from 'node:events'
import http2, { type ClientHttp2Session, type ClientHttp2Stream, type OutgoingHttpHeaders, constants } from 'node:http2'
import type { Socket } from 'node:net'
import { setImmediate as immediate } from 'node:timers/promises'
import type { Case } from './case.ts'
import { pause } from './connection.ts'
import { pathOf } from './handlers.ts'
import type { Environment } from './http1-client.ts'
import { ANSWER_LIMIT, WAIT_LIMIT, settlesWithin } from './limits.ts'

const CODES = [constants.NGHTTP2_NO_ERROR, constants.NGHTTP2_PROTOCOL_ERROR, constants.NGHTTP2_INTERNAL_ERROR, constants.NGHTTP2_STREAM_CLOSED, constants.NGHTTP2_REFUSED_STREAM, constants.NGHTTP2_CANCEL, constants.NGHTTP2_ENHANCE_YOUR_CALM]

/** When streams are reset: at once, after a part of the body, at the head of the response, or at its end. */
type Stage = 'begin' | 'body' | 'response' | 'end'
const STAGES: readonly Stage[] = ['begin', 'body', 'response', 'end']

/** @returns the problems */
export async function runHttp2 (testCase: Case, { dial, authorities, findOpen }: Environment): Promise<string[]> {
  const socket = await dial() as Socket
  const session = http2.connect('http://a', { createConnection: () => socket })
  session.on('error', () => {})
  try {
    const streams = Array.from({ length: testCase.streams }, (_, n) => open(testCase, session, `${testCase.number}.${n}`, authorities))
    await Promise.all(streams.map((stream, n) => sendBody(testCase, stream, n)))
    await act(testCase, session, socket, streams)
    const problems = testCase.act === 'complete' ? await sendNext(testCase, session) : []
    if (testCase.mustEnd) problems.push(...(await findOpen(testCase.number)).map((what) => `before the client leaves, ${what}`))
    return problems
  } finally {
    session.destroy()
    socket.destroy()
  }
}

function open (testCase: Case, session: ClientHttp2Session, id: string, authorities: Record<string, string>): ClientHttp2Stream {
  const { request } = testCase
  const method = { connect: 'CONNECT', HEAD: 'HEAD', none: 'GET' }[request as string] ?? 'POST'
  const headers: OutgoingHttpHeaders = { ':method': method, 'x-id': id }
  if (request === 'connect') Object.assign(headers, { ':authority': testCase.at < 0.05 ? 'nowhere' : authorities[testCase.target], 'x-handler': testCase.handler })
  else headers[':path'] = pathOf(testCase.pace, testCase.handler)
  if (request === 'length') headers['content-length'] = testCase.size
  if (testCase.refusedIn !== '') headers['x-refuse'] = testCase.refusedIn
  const stream = session.request(headers, { endStream: request === 'none' || request === 'HEAD', waitForTrailers: request === 'trailers' } as {})
  stream.on('error', () => {})
  stream.on('wantTrailers', () => { if (!stream.destroyed) stream.sendTrailers({ 'x-sum': '1' }) })
  // A client that does not read exhausts its flow-control window.
  if (!testCase.act.startsWith('stuck')) stream.resume()
  return stream
}

/** Sends the body, or as much of it as the case says, and resets the stream at its stage. */
async function sendBody (testCase: Case, stream: ClientHttp2Stream, n: number): Promise<void> {
  const isReset = testCase.act === 'stream reset' ? n === 0 : testCase.act === 'many streams reset'
  const stage = STAGES[Math.floor(testCase.at * 97 + n) % STAGES.length]
  const reset = (): void => { stream.close(CODES[Math.floor(testCase.at * 89 + n) % CODES.length]) }
  if (isReset && stage === 'begin') reset()
  if (isReset && stage === 'response') stream.once('response', reset)
  if (isReset && stage === 'end') stream.once('end', reset)
  const isWhole = ['complete', 'stuck', 'half-close', 'session closed', 'many streams reset'].includes(testCase.act)
  const size = isWhole ? testCase.size : Math.floor(testCase.at * testCase.size)
  for (let part = 0; part < testCase.parts && !stream.destroyed && stream.writable; part++) {
    if (part > 0) await immediate()
    if (stream.writable) stream.write(Buffer.alloc(Math.floor(size / testCase.parts) + (part === 0 ? size % testCase.parts : 0), 'x'))
    if (isReset && stage === 'body' && part === Math.floor(testCase.parts / 2)) reset()
  }
  if (isWhole && testCase.request !== 'connect' && stream.writable) stream.end()
}

async function act (testCase: Case, session: ClientHttp2Session, socket: Socket, streams: ClientHttp2Stream[]): Promise<void> {
  await pause(testCase.delay)
  const closed = Promise.all(streams.map((stream) => stream.closed || stream.destroyed || once(stream, 'close').catch(() => {})))
  if (session.destroyed) return
  if (testCase.act === 'goaway') session.goaway(CODES[Math.floor(testCase.at * CODES.length)])
  if (testCase.act === 'session destroyed') session.destroy(undefined, CODES[Math.floor(testCase.at * CODES.length)])
  if (testCase.act === 'session closed') session.close()
  if (testCase.act === 'reset' && typeof socket.resetAndDestroy === 'function' && !('encrypted' in socket)) socket.resetAndDestroy()
  if (testCase.act === 'leave' || testCase.act === 'reset') socket.destroy()
  if (testCase.act === 'half-close') socket.end()
  if (testCase.act === 'stuck, then leaves') await pause(40)
  if (['silent', 'many streams reset', 'stream reset', 'goaway', 'session closed', 'stuck', 'half-close', 'complete'].includes(testCase.act)) await settlesWithin(WAIT_LIMIT, closed)
}

/** Sends the next request on the session. It must be answered, or the session must end. */
async function sendNext (testCase: Case, session: ClientHttp2Session): Promise<string[]> {
  if (session.closed || session.destroyed) return []
  const stream = session.request({ ':path': '/pong', 'x-id': `${testCase.number}.next` })
  let answered = false
  stream.on('error', () => {}).on('response', () => { answered = true }).resume()
  if (!await settlesWithin(ANSWER_LIMIT, once(stream, 'close'))) return ['the next request on the session is not answered']
  return !answered && testCase.mustKeep ? ['the session is not kept'] : []
}

/** Whether a request on a new session is answered. */
export async function isAnsweredOverHttp2 (dial: Environment['dial'], id: string): Promise<boolean> {
  const socket = await dial()
  const session = http2.connect('http://a', { createConnection: () => socket as never })
  session.on('error', () => {})
  try {
    const stream = session.request({ ':path': '/pong', 'x-id': id })
    stream.resume()
    await once(stream, 'response')
    return true
  } finally {
    session.destroy()
    socket.destroy()
  }
}
