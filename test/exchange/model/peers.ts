// The client of a run: over a connection written by hand, over HTTP/2, or of app.injectDuplex().

import { once } from 'node:events'
import http2 from 'node:http2'
import type { FastifyInstance } from 'fastify'
import type { InjectedDuplex } from '../../../types/index.d.ts'
import { type ResponseHead } from '../../../lib/transfer/head-reader.ts'
import { type Wire, chunk } from '../../support/wire.ts'
import { LENGTHS, type Setup } from './state.ts'

/** A response as the client sees it. */
export interface Seen {
  statusCode: number
  body: string
  isWhole: boolean
  /** The head has announced that the connection is closed. */
  closes: boolean
  trailers: Record<string, string>
}

/** Null: the connection has ended without a response. */
export type Outcome = Seen | null

export interface Peer {
  content: (text: string) => void
  end: () => void
  /** The commands of HTTP/1.1 alone. */
  malformed?: () => void
  halfClose?: () => void
  reset: () => void
  /** Sends a GET request to the path, with this id. */
  next: (path: string, id: string) => void
  /** The responses in their order. Each is asked for once. */
  response: () => Promise<Outcome>
  /** Settles when the server has ended the connection. */
  closed: Promise<unknown>
  /** Bytes behind the responses that were asked for. */
  leftOver: () => number
  destroy: () => void
}

const ID = 'x'
const FIELDS: Record<Setup['request'], string> = {
  none: '',
  chunked: 'Transfer-Encoding: chunked\r\n',
  length: `Content-Length: ${LENGTHS.length}\r\n`,
  longer: `Content-Length: ${LENGTHS.longer}\r\n`,
  expect: `Content-Length: ${LENGTHS.expect}\r\nExpect: 100-continue\r\n`,
  'HTTP/1.0': `Content-Length: ${LENGTHS['HTTP/1.0']}\r\n`
}

export function wirePeer (wire: Wire, request: Setup['request']): Peer {
  const { socket } = wire
  let isReset = false
  socket.on('error', () => { isReset = true })
  const isChunked = request === 'chunked'
  wire.send(`${request === 'none' ? 'GET' : 'POST'} /x HTTP/${request === 'HTTP/1.0' ? '1.0' : '1.1'}\r\nHost: a\r\nX-Id: ${ID}\r\n${FIELDS[request]}\r\n`)
  return {
    content: (text) => { wire.send(isChunked ? chunk(text) : text) },
    end: () => { if (isChunked) wire.send('0\r\n\r\n') },
    malformed: () => { wire.send('XX\r\n') },
    halfClose: () => { socket.end() },
    // After end(), a reset leaves libuv with a shutdown that never completes: the process would not end.
    reset: () => {
      if (socket.writableEnded) socket.destroy()
      else socket.resetAndDestroy()
    },
    next: (path, id) => { wire.send(`GET ${path} HTTP/1.1\r\nHost: a\r\nX-Id: ${id}\r\n\r\n`) },
    async response () {
      let head: ResponseHead
      try {
        do head = await wire.head() // GET: no response to HEAD
        while (head.statusCode < 200)
      } catch (error) {
        if ((error as { code?: string }).code !== 'FST_ERR_DUPLEX_TRUNCATED') throw error
        return null
      }
      const { statusCode, minorVersion, fields } = head
      const isUntilClose = fields['content-length'] === undefined && fields['transfer-encoding'] === undefined
      const closes = isUntilClose || minorVersion === 0 || String(fields.connection).includes('close')
      let body = ''
      try {
        while (true) {
          const content = await wire.content()
          if (content === '') break
          body += content
        }
        return { statusCode, body, isWhole: !(isUntilClose && isReset), closes, trailers: trailersOf(wire) }
      } catch (error) {
        // Any other error: what came behind a part of the body was not its continuation.
        if ((error as { code?: string }).code !== 'FST_ERR_DUPLEX_TRUNCATED') throw error
        return { statusCode, body, isWhole: false, closes, trailers: {} }
      }
    },
    closed: wire.ended,
    leftOver: () => wire.pending,
    destroy: () => { socket.destroy() }
  }
}

/** `Wire` shows them as a part of a whole response only. */
function trailersOf (wire: Wire): Record<string, string> {
  return { ...(wire as unknown as { reader: { trailers: Record<string, string> } }).reader.trailers }
}

export async function http2Peer (port: number, request: Setup['request'], id = ID): Promise<Peer> {
  const session = http2.connect(`http://127.0.0.1:${port}`)
  session.on('error', () => {})
  await once(session, 'connect')
  const closed = new Promise<void>((resolve) => { session.on('close', resolve) })
  const asked: Promise<Outcome>[] = []
  const ask = (fields: http2.OutgoingHttpHeaders, options?: http2.ClientSessionRequestOptions): http2.ClientHttp2Stream | undefined => {
    if (session.closed || session.destroyed) { // after GOAWAY
      asked.push(Promise.resolve(null))
      return undefined
    }
    const stream = session.request(fields, options)
    let statusCode = 0
    let body = ''
    let trailers = {}
    let isWhole = false
    stream.on('response', (fields) => { statusCode = fields[':status']! })
    stream.on('trailers', (fields) => { trailers = { ...fields } })
    stream.on('data', (chunk) => { body += chunk })
    stream.on('end', () => { isWhole = (stream.rstCode ?? 0) === http2.constants.NGHTTP2_NO_ERROR })
    stream.on('error', () => {})
    asked.push(new Promise((resolve) => {
      const onOver = (): void => { resolve(statusCode === 0 ? null : { statusCode, body, isWhole, closes: false, trailers }) }
      stream.on('close', onOver)
      // A stream that was reset without an error does not close on Node 22 while something is left to write.
      for (const event of ['end', 'aborted']) stream.on(event, () => { if (stream.aborted && stream.readableEnded) onOver() })
    }))
    return stream
  }
  const stream = ask({ ':path': '/x', ':method': request === 'none' ? 'GET' : 'POST', 'x-id': id }, { endStream: request === 'none' })!
  return {
    content: (text) => { stream.write(text) },
    end: () => { stream.end() },
    reset: () => { stream.destroy() },
    next: (path, id) => { ask({ ':path': path, 'x-id': id }) },
    response: () => asked.shift()!,
    closed,
    leftOver: () => 0,
    destroy: () => { session.destroy() }
  }
}

export async function injectPeer (app: FastifyInstance, request: Setup['request']): Promise<Peer> {
  const length = LENGTHS[request]
  const method = request === 'none' ? 'GET' : 'POST'
  const client = await app.injectDuplex({
    method,
    url: '/x',
    headers: { 'x-id': ID, ...(length > 0 ? { 'content-length': length } : {}), ...(request === 'expect' ? { expect: '100-continue' } : {}) },
    // An empty stream of its own would end the body.
    ...(request === 'HTTP/1.0' ? { httpVersion: '1.0' } : {})
  })
  const asked = [seen(client)]
  let last = client
  const { socket } = client
  const closed = new Promise<void>((resolve) => { socket.on('end', resolve).on('close', resolve) })
  return {
    content: (text) => { client.write(text) },
    end: () => { client.end() },
    malformed: () => { socket.write('XX\r\n') },
    halfClose: () => { socket.end() },
    reset: () => { (socket as unknown as { resetAndDestroy: () => void }).resetAndDestroy() },
    next: (path, id) => {
      last = last.next({ url: path, headers: { 'x-id': id } })
      asked.push(seen(last))
    },
    response: () => asked.shift()!,
    closed,
    leftOver: () => 0,
    destroy: () => { socket.destroy() }
  }
}

const CUT_OFF = ['FST_ERR_DUPLEX_TRUNCATED', 'FST_ERR_DUPLEX_ABORTED', 'EPIPE', 'ECONNRESET', 'ERR_STREAM_WRITE_AFTER_END', 'ERR_STREAM_DESTROYED']

function seen (client: InjectedDuplex): Promise<Outcome> {
  const outcome = new Promise<Outcome>((resolve, reject) => {
    let body = ''
    let hasEnded = false
    let failure: { code?: string } | null = null
    client.on('data', (chunk) => { body += chunk })
    const settle = async (): Promise<void> => {
      try {
        const { statusCode, headers, httpVersion } = await client.response
        const closes = httpVersion === '1.0' || String(headers.connection).includes('close') || (headers['content-length'] === undefined && headers['transfer-encoding'] === undefined)
        if (failure !== null && !CUT_OFF.includes(failure.code!)) reject(failure)
        else resolve({ statusCode, body, isWhole: hasEnded, closes, trailers: { ...client.trailers } })
      } catch (error) {
        if (CUT_OFF.includes((error as { code: string }).code)) resolve(null)
        else reject(error)
      }
    }
    client.on('end', () => {
      hasEnded = true
      settle()
    })
    client.on('error', (error) => { failure = error as { code?: string } })
    client.on('close', settle)
  })
  outcome.catch(() => {}) // nobody asks for it when the client has gone
  return outcome
}
