// Fastify's own way to stream. The argument chooses the handler. `send`: a content-type parser that passes the body on as
// a stream, and `reply.send(stream)`. `pipeline`: `reply.hijack()` and a pipeline from request to response.

import type { IncomingMessage } from 'node:http'
import { finished, pipeline } from 'node:stream/promises'
import Fastify, { type RouteHandlerMethod } from 'fastify'
import { Counter, Source, parseDownload, serve } from './serve.ts'

const ECHO: Record<string, RouteHandlerMethod> = {
  send (request, reply) {
    reply.type('application/octet-stream').send(request.body)
  },

  async pipeline (request, reply) {
    reply.hijack()
    reply.raw.writeHead(200, { 'content-type': 'application/octet-stream' })
    await pipeline(request.raw, reply.raw)
  }
}

async function main (): Promise<void> {
  const app = Fastify()
  app.addContentTypeParser('application/octet-stream', (_request, payload, done) => done(null, payload))

  app.post('/echo', ECHO[process.argv[2]])

  app.post('/up', async (request) => {
    const counter = new Counter()
    await finished((request.body as IncomingMessage).pipe(counter))
    return String(counter.size)
  })

  app.get('/down', (request, reply) => {
    reply.type('application/octet-stream').send(new Source(parseDownload(request.url)))
  })

  await app.listen({ port: 0, host: '127.0.0.1', backlog: 4096 })
  serve(app.server)
}

main()
