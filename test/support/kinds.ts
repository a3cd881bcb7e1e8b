// Apps whose exchanges use the raw connection, and apps whose exchanges use Node's request/response pair.

import { once } from 'node:events'
import http2 from 'node:http2'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { addLaterConstraint } from './later-constraint.ts'
import { type Served, TLS, chunk, serve } from './wire.ts'

export interface Kind { options: object, routeOptions: object, http2?: boolean }

export const KINDS: Record<string, Kind> = {
  raw: { options: {}, routeOptions: {} },
  'asynchronous constraint': { options: {}, routeOptions: { constraints: { later: 'yes' } } },
  h2c: { options: { http2: true }, routeOptions: {}, http2: true },
  h2: { options: { http2: true, https: { ...TLS, allowHTTP1: true } }, routeOptions: {}, http2: true }
}

export interface ServedKind extends Served {
  /** Opens a request. All of them go over one connection. */
  ask: (path: string, fields?: Record<string, string>, method?: string) => Promise<Asked>
}

/** Starts an app of one kind. */
export async function serveKind (t: Test, { options, routeOptions, http2: isHttp2 }: Kind, setup: (app: FastifyInstance, routeOptions: object) => unknown, { plugin = {} }: { plugin?: object } = {}): Promise<ServedKind> {
  const served = await serve(t, 'tcp', (app) => {
    if ('constraints' in routeOptions) addLaterConstraint(app)
    return setup(app, routeOptions)
  }, { fastify: options, plugin })
  if (!isHttp2) {
    const wire = await served.connect()
    return {
      ...served,
      async ask (path, fields = {}, method = 'POST') {
        wire.send(`${method} ${path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n${Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`)
        return {
          write: (content) => { wire.send(chunk(content)) },
          end: () => { wire.send('0\r\n\r\n') },
          nonsense: () => { wire.send('nonsense') },
          leave: () => { wire.socket.resetAndDestroy() },
          reset: () => { wire.socket.resetAndDestroy() },
          pause: () => { wire.socket.pause() },
          status: async () => (await wire.head()).statusCode,
          body: () => wire.body(),
          resetCode: () => undefined
        }
      }
    }
  }
  const session = http2.connect(`${'https' in options ? 'https' : 'http'}://127.0.0.1:${served.port}`, { rejectUnauthorized: false })
  session.on('error', () => {})
  t.teardown(() => session.destroy())
  return {
    ...served,
    async ask (path, fields = {}, method = 'POST') {
      const stream = session.request({ ':path': path, ':method': method, ...fields }, { endStream: false })
      const response = once(stream, 'response')
      response.catch(() => {})
      stream.on('error', () => {})
      return {
        write: (content) => { stream.write(content) },
        end: () => { stream.end() },
        nonsense: () => { stream.close(http2.constants.NGHTTP2_PROTOCOL_ERROR) },
        // Not the whole session: below Node 26 its end is not always seen over TLS, by Fastify alone either.
        leave: () => { stream.close(http2.constants.NGHTTP2_CANCEL) },
        reset: () => { stream.destroy() },
        pause: () => { stream.pause() },
        status: async () => Number((await response)[0][':status']),
        body: async () => Buffer.concat(await stream.toArray()).toString(),
        resetCode: () => stream.rstCode
      }
    }
  }
}

export interface Asked {
  write: (content: string) => void
  end: () => void
  /** Sends an invalid chunk. Over HTTP/2 a reset. */
  nonsense: () => void
  /** Over HTTP/2, this also ends the request. */
  leave: () => void
  /** Leaves within the body of the request. */
  reset: () => void
  /** Stops reading from the connection. */
  pause: () => void
  status: () => Promise<number>
  body: () => Promise<string>
  /** Of HTTP/2, once the body has failed. */
  resetCode: () => number | undefined
}
