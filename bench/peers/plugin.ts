// The plugin. The first argument chooses one of the ways to write an echo: `pipeline`, `iterate`, `yield`, `write` or `items`.
// With a second one, `gc`, the process exposes `gc` to the plugin.

import { once } from 'node:events'
import { pipeline } from 'node:stream/promises'
import Fastify, { type RouteHandlerMethod } from 'fastify'
import duplex from 'fastify-duplex'
import { jsonl } from 'fastify-duplex/items'
import { Counter, Source, parseDownload, serve } from './serve.ts'

const ECHO: Record<string, RouteHandlerMethod> = {
  async pipeline (_request, reply) {
    reply.type('application/octet-stream')
    await pipeline(reply.duplex, reply.duplex)
  },

  async iterate (_request, reply) {
    reply.type('application/octet-stream')
    const stream = reply.duplex
    for await (const chunk of stream) {
      if (!stream.write(chunk)) await once(stream, 'drain')
    }
    stream.end()
  },

  async * yield (_request, reply) {
    reply.type('application/octet-stream')
    yield * reply.duplex
  },

  write (_request, reply) {
    reply.type('application/octet-stream')
    const stream = reply.duplex
    stream.on('data', (chunk) => {
      if (!stream.write(chunk)) stream.pause()
    })
    stream.on('drain', () => stream.resume())
    stream.on('end', () => stream.end())
  }
}

async function main (): Promise<void> {
  const app = Fastify()
  await app.register(duplex)

  const way = process.argv[2]
  if (way === 'items') {
    const lines = jsonl({ type: 'string' } as const)
    app.post('/echo', { duplex: { receive: lines, send: lines } }, async function * (_request, reply) {
      for await (const item of reply.duplex.items) yield item
    })
  } else {
    app.post('/echo', { duplex: true }, ECHO[way])
  }

  app.post('/up', { duplex: true }, async (_request, reply) => {
    const counter = new Counter()
    await pipeline(reply.duplex, counter)
    reply.duplex.end(String(counter.size))
  })

  app.get('/down', { duplex: true }, async (request, reply) => {
    reply.type('application/octet-stream')
    await pipeline(new Source(parseDownload(request.url)), reply.duplex)
  })

  await app.listen({ port: 0, host: '127.0.0.1', backlog: 4096 })
  serve(app.server)
}

main()
