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
export async function runHttp2 (one: Case, { dial, authorities, findOpen }: Environment): Promise<string[]> {
  const socket = await dial() as Socket
  const session = http2.connect('http://a', { createConnection: () => socket })
  session.on('error', () => {})
  try {
    const streams = Array.from({ length: one.streams }, (_, n) => open(one, session, `${one.number}.${n}`, authorities))
    await Promise.all(streams.map((stream, n) => sendBody(one, stream, n)))
    await act(one, session, socket, streams)
    const problems = one.act === 'complete' ? await sendNext(one, session) : []
    if (one.mustEnd) problems.push(...(await findOpen(one.number)).map((what) => `before the client leaves, ${what}`))
    return problems
  } finally {
    session.destroy()
    socket.destroy()
  }
}

function open (one: Case, session: ClientHttp2Session, id: string, authorities: Record<string, string>): ClientHttp2Stream {
  const { request } = one
  const method = { connect: 'CONNECT', HEAD: 'HEAD', none: 'GET' }[request as string] ?? 'POST'
  const headers: OutgoingHttpHeaders = { ':method': method, 'x-id': id }
  if (request === 'connect') Object.assign(headers, { ':authority': one.at < 0.05 ? 'nowhere' : authorities[one.target], 'x-handler': one.handler })
  else headers[':path'] = pathOf(one.pace, one.handler)
  if (request === 'length') headers['content-length'] = one.size
  if (one.refusedIn !== '') headers['x-refuse'] = one.refusedIn
  const stream = session.request(headers, { endStream: request === 'none' || request === 'HEAD', waitForTrailers: request === 'trailers' } as {})
  stream.on('error', () => {})
  stream.on('wantTrailers', () => { if (!stream.destroyed) stream.sendTrailers({ 'x-sum': '1' }) })
  // A client that does not read exhausts its flow-control window.
  if (!one.act.startsWith('stuck')) stream.resume()
  return stream
}

/** Sends the body, or as much of it as the case says, and resets the stream at its stage. */
async function sendBody (one: Case, stream: ClientHttp2Stream, n: number): Promise<void> {
  const isReset = one.act === 'stream reset' ? n === 0 : one.act === 'many streams reset'
  const stage = STAGES[Math.floor(one.at * 97 + n) % STAGES.length]
  const reset = (): void => { stream.close(CODES[Math.floor(one.at * 89 + n) % CODES.length]) }
  if (isReset && stage === 'begin') reset()
  if (isReset && stage === 'response') stream.once('response', reset)
  if (isReset && stage === 'end') stream.once('end', reset)
  const isWhole = ['complete', 'stuck', 'half-close', 'session closed', 'many streams reset'].includes(one.act)
  const size = isWhole ? one.size : Math.floor(one.at * one.size)
  for (let part = 0; part < one.parts && !stream.destroyed && stream.writable; part++) {
    if (part > 0) await immediate()
    if (stream.writable) stream.write(Buffer.alloc(Math.floor(size / one.parts) + (part === 0 ? size % one.parts : 0), 'x'))
    if (isReset && stage === 'body' && part === Math.floor(one.parts / 2)) reset()
  }
  if (isWhole && one.request !== 'connect' && stream.writable) stream.end()
}

async function act (one: Case, session: ClientHttp2Session, socket: Socket, streams: ClientHttp2Stream[]): Promise<void> {
  await pause(one.delay)
  const closed = Promise.all(streams.map((stream) => stream.closed || stream.destroyed || once(stream, 'close').catch(() => {})))
  if (session.destroyed) return
  if (one.act === 'goaway') session.goaway(CODES[Math.floor(one.at * CODES.length)])
  if (one.act === 'session destroyed') session.destroy(undefined, CODES[Math.floor(one.at * CODES.length)])
  if (one.act === 'session closed') session.close()
  if (one.act === 'reset' && typeof socket.resetAndDestroy === 'function' && !('encrypted' in socket)) socket.resetAndDestroy()
  if (one.act === 'leave' || one.act === 'reset') socket.destroy()
  if (one.act === 'half-close') socket.end()
  if (one.act === 'stuck, then leaves') await pause(40)
  if (['silent', 'many streams reset', 'stream reset', 'goaway', 'session closed', 'stuck', 'half-close', 'complete'].includes(one.act)) await settlesWithin(WAIT_LIMIT, closed)
}

/** Sends the next request on the session. It must be answered, or the session must end. */
async function sendNext (one: Case, session: ClientHttp2Session): Promise<string[]> {
  if (session.closed || session.destroyed) return []
  const stream = session.request({ ':path': '/pong', 'x-id': `${one.number}.next` })
  let answered = false
  stream.on('error', () => {}).on('response', () => { answered = true }).resume()
  if (!await settlesWithin(ANSWER_LIMIT, once(stream, 'close'))) return ['the next request on the session is not answered']
  return !answered && one.mustKeep ? ['the session is not kept'] : []
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
