// The routes of the app without the plugin: the closest equivalents in Fastify alone. The ordinary routes are in both apps.

import { once } from 'node:events'
import net from 'node:net'
import { PassThrough, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance, RouteShorthandOptions } from 'fastify'
import { untilReleased } from './release.ts'
import type { AppConfig } from './messages.ts'

export const BLOCK = Buffer.alloc(64 * 1024, 'x')

export function * blocks (): Generator<Buffer> {
  for (;;) yield BLOCK
}

type Body = { body: Readable }

/** Adds the ordinary routes that both apps have. */
export function addOrdinaryRoutes (app: FastifyInstance, { routesLate }: AppConfig): void {
  const options: RouteShorthandOptions = routesLate ? { constraints: { later: 'yes' } } : {}
  app.addContentTypeParser('*', (_request, payload, done) => { done(null, payload) })
  app.get('/ordinary', options, async () => 'ok')
  app.post('/ordinary', options, async (request) => {
    (request as unknown as Body).body?.resume()
    return 'ok'
  })
  app.get('/ordinary/download', options, (_request, reply) => { reply.send(Readable.from(blocks())) })
  app.get('/ordinary/held', options, async () => {
    await untilReleased()
    return 'ok'
  })
}

export function addPlainRoutes (app: FastifyInstance, { target, routesLate, transport }: AppConfig): void {
  const options: RouteShorthandOptions = routesLate ? { constraints: { later: 'yes' } } : {}
  const post = (path: string, answer: (body: Readable) => unknown, hooks: RouteShorthandOptions = {}): void => {
    app.post(path, { ...options, ...hooks }, (request, reply) => {
      const answered = answer((request as unknown as Body).body ?? Readable.from([]))
      if (answered instanceof Promise) answered.then((value) => reply.send(value), (error) => reply.send(error))
      else reply.send(answered)
    })
  }
  const openResponse = (): PassThrough => {
    const response = new PassThrough()
    response.write('\n') // Fastify sends the head with the first chunk
    untilReleased().then(() => response.end())
    return response
  }
  post('/hook', (body) => body, { onRequest: async () => { await untilReleased() } })
  post('/turn-hook', () => 'ok', { onRequest: async () => { await immediate() } })
  post('/turn', async (body) => {
    await immediate()
    body.resume()
    return 'ok'
  })
  post('/short', async (body) => {
    let size = 0
    for await (const chunk of body) size += chunk.length
    return `ok ${size}`
  })
  post('/unread', openResponse)
  post('/paused', (body) => {
    body.once('data', () => body.pause())
    untilReleased().then(() => body.resume())
    return openResponse()
  })
  post('/download/generator', () => Readable.from(blocks()))
  post('/download/pipeline', () => Readable.from(blocks()))
  post('/echo/pipeline', (body) => body)
  post('/echo/loop', (body) => Readable.from((async function * () { for await (const chunk of body) yield chunk })()))
  app.post('/echo/write', options, (request, reply) => {
    const { body } = request as unknown as Body
    const { raw } = reply.hijack()
    body.on('data', (chunk) => { if (!raw.write(chunk)) body.pause() })
    raw.on('drain', () => body.resume())
    body.on('end', () => raw.end()).on('error', () => raw.destroy())
  })
  post('/early', () => 'early')
  app.post('/last', options, (_request, reply) => { reply.header('connection', 'close').send('last') })
  app.post('/detach', options, (request, reply) => {
    const { socket } = reply.hijack().raw
    request.raw.resume()
    socket!.write('HTTP/1.1 200 OK\r\n\r\n')
  })
  if (transport === 'http2') return
  app.server.on('upgrade', (_request, socket, head) => {
    socket.unshift(head)
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n')
    pipeline(socket, socket).catch(() => {})
  })
  app.server.on('connect', async (_request, socket) => {
    socket.on('error', () => {})
    const upstream = net.connect({ host: '127.0.0.1', port: target, allowHalfOpen: true })
    upstream.on('error', () => socket.destroy())
    await once(upstream, 'connect').catch(() => {})
    socket.write('HTTP/1.1 200 OK\r\n\r\n')
    await Promise.all([pipeline(socket, upstream), pipeline(upstream, socket)]).catch(() => {})
  })
}
