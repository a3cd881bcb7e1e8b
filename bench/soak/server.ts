// The process under test. It checks every byte that it reads, counts how exchanges end, and reports memory when asked.

import { subscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import type { Readable } from 'node:stream'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import type { Counts, Memory, ServerTask } from './messages.ts'
import { answerTo, matches, pattern } from './pattern.ts'

const counts: Counts = { started: 0, finished: 0, failed: 0, bytes: 0, wrong: 0, connections: 0 }
subscribe('fastify-duplex.exchange.start', () => { counts.started++ })
subscribe('fastify-duplex.exchange.finish', () => { counts.finished++ })
subscribe('fastify-duplex.exchange.error', () => { counts.failed++ })

const app = Fastify({ forceCloseConnections: true })
app.server.on('connection', (socket) => {
  counts.connections++
  socket.on('close', () => { counts.connections-- })
})

async function start (): Promise<void> {
  await app.register(duplex, { idleTimeout: 0 })
  app.post('/duplex', { duplex: true }, async (request, reply) => {
    await pipeline(reply.duplex, reply.duplex)
  })
  // The same on an ordinary route: Fastify's own way to stream in both directions.
  app.addContentTypeParser('application/octet-stream', (_request: unknown, payload: Readable, done: (error: null, body: Readable) => void) => done(null, payload))
  app.post('/ordinary', (request, reply) => { reply.send(request.body) })

  app.post<{ Params: { number: number } }>('/talk/:number', {
    duplex: true,
    schema: { params: { type: 'object', properties: { number: { type: 'integer' } } } }
  }, async (request, reply) => {
    const { number } = request.params
    let position = 0
    reply.duplex.flushHeaders()
    for await (const chunk of reply.duplex) {
      if (matches(chunk, number, position)) counts.bytes += chunk.length
      else counts.wrong++
      const answer = pattern(answerTo(number), position, chunk.length)
      position += chunk.length
      if (!reply.duplex.write(answer)) await once(reply.duplex, 'drain')
    }
    reply.duplex.setTrailers({ 'x-received': position }).end()
  })
  await app.listen({ port: 0, host: '127.0.0.1', backlog: 4096 })
  process.send!({ port: (app.server.address() as AddressInfo).port })
}

process.on('message', ({ task }: ServerTask) => {
  if (task === 'memory') process.send!(measureMemory())
  else if (task === 'counts') process.send!(counts)
  else app.close().then(() => immediate()).then(() => immediate()).then(() => process.send!(counts, () => process.disconnect()))
})

const delay = monitorEventLoopDelay()
delay.enable()

function measureMemory (): Memory {
  const turn = delay.max / 1e6
  const gc = (globalThis as { gc?: () => void }).gc!
  gc()
  gc()
  const { heapUsed, external, rss } = process.memoryUsage()
  delay.reset()
  return { heap: heapUsed, external, rss, turn }
}

start()
