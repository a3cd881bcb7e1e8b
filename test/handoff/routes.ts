// Duplex and ordinary routes of every kind, on one app.

import { once } from 'node:events'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'

export const BIG = Buffer.alloc(8_000_000, 'x')

export function routes (app: FastifyInstance): void {
  app.post('/echo', { duplex: true }, async (request, reply) => {
    await pipeline(reply.duplex, reply.duplex)
  })
  app.post('/slow-hooks', {
    duplex: true,
    onRequest: async () => { for (let i = 0; i < 20; i++) await immediate() },
    preHandler: async () => { for (let i = 0; i < 20; i++) await immediate() }
  }, async (request, reply) => {
    await pipeline(reply.duplex, reply.duplex)
  })
  app.post('/later', { duplex: true }, async (request, reply) => {
    await once(reply.duplex, 'readable')
    for (let i = 0; i < 20; i++) await immediate()
    await pipeline(reply.duplex, reply.duplex)
  })
  app.get('/hello', { duplex: true }, (request, reply) => reply.duplex.end('hello'))
  app.get('/plain', async () => 'plain')
  app.get('/at-once', (request, reply) => { reply.send('plain') })
  app.get('/big', (request, reply) => { reply.send(BIG) })
  app.post('/plain', async (request) => request.body)
}
