// The routes of the app with the plugin: one for each state in which a client can hold an exchange.

import { once } from 'node:events'
import net from 'node:net'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance, RouteShorthandOptions } from 'fastify'
import { untilReleased } from './release.ts'
import type { AppConfig } from './messages.ts'
import { BLOCK, blocks } from './plain-routes.ts'

export function addDuplexRoutes (app: FastifyInstance, { target, routesLate, transport }: AppConfig): void {
  const options: RouteShorthandOptions = { duplex: true, ...(routesLate ? { constraints: { later: 'yes' } } : {}) }

  app.post('/hook', { ...options, onRequest: async () => { await untilReleased() } }, async (_request, reply) => {
    await pipeline(reply.duplex, reply.duplex)
  })
  app.post('/turn-hook', { ...options, onRequest: async () => { await immediate() } }, async () => 'ok')
  app.post('/turn', options, async (_request, reply) => {
    await immediate()
    reply.duplex.resume().end('ok')
  })
  app.post('/short', options, async function * (_request, reply) {
    let size = 0
    for await (const chunk of reply.duplex) size += chunk.length
    yield `ok ${size}`
  })
  app.post('/unread', options, async (_request, reply) => {
    reply.duplex.flushHeaders()
    await untilReleased()
    reply.duplex.end()
  })
  app.post('/paused', options, async (_request, reply) => {
    reply.duplex.flushHeaders()
    reply.duplex.once('data', () => reply.duplex.pause())
    await untilReleased()
    reply.duplex.resume().end()
  })
  app.post('/download/generator', options, async function * () {
    for (;;) yield BLOCK
  })
  app.post('/download/pipeline', options, async (_request, reply) => {
    await pipeline(Readable.from(blocks()), reply.duplex)
  })
  app.post('/echo/pipeline', options, async (_request, reply) => {
    await pipeline(reply.duplex, reply.duplex)
  })
  app.post('/echo/loop', options, async function * (_request, reply) {
    for await (const chunk of reply.duplex) yield chunk
  })
  app.post('/echo/write', options, async (_request, reply) => {
    const { duplex } = reply
    duplex.on('data', (chunk) => { if (!duplex.write(chunk)) duplex.pause() })
    duplex.on('drain', () => duplex.resume())
    duplex.on('end', () => duplex.end())
    await once(duplex, 'close')
  })
  app.post('/early', options, async () => 'early')
  app.post('/last', options, async (_request, reply) => {
    reply.header('connection', 'close').duplex.end('last')
  })
  app.post('/slot', options, async (_request, reply) => {
    reply.duplex.flushHeaders()
    reply.duplex.resume()
    await once(reply.duplex, 'close').catch(() => {})
  })
  app.post('/end-socket', options, async (_request, reply) => {
    reply.duplex.socket.end()
  })
  app.post('/detach', options, async (_request, reply) => {
    reply.duplex.resume()
    await once(reply.duplex, 'end')
    const { socket } = reply.duplex.detach()
    socket.on('error', () => socket.destroy()).on('end', () => socket.end()).resume()
    socket.write('HTTP/1.1 200 OK\r\n\r\n')
  })
  if (transport === 'http2') return
  app.get('/attach', options, async (_request, reply) => {
    const { duplex } = reply.code(101).header('upgrade', 'tcp')
    await pipeline(duplex, duplex)
  })
  // As in the README.
  app.addHttpMethod('CONNECT')
  ;(app as unknown as { connect: FastifyInstance['get'] }).connect('*', options, async (_request, reply) => {
    const upstream = net.connect({ host: '127.0.0.1', port: target, allowHalfOpen: true })
    await once(upstream, 'connect')
    await Promise.all([pipeline(reply.duplex, upstream), pipeline(upstream, reply.duplex)])
  })
}
