// An ordinary Fastify route: a content-type parser that passes the body on as a stream, split2, and a reply that is a stream.
// The argument chooses what is between them: `generator`, a loop that gets one row after the other, as a handler of this plugin
// does; or `mapper`, everything in the mapper of split2, where nothing can be waited for.

import { type Duplex, Readable } from 'node:stream'
import Fastify from 'fastify'
import { checked, resultOf, serialize } from '../rows.ts'
import { serve } from './serve.ts'

/** It comes without types. */
const split2 = require('split2') as (map: (line: string) => unknown) => Duplex

const HANDLERS: Record<string, (body: Readable) => Readable> = {
  generator: (body) => Readable.from(results(body.pipe(split2(JSON.parse)))),
  mapper: (body) => body.pipe(split2((line) => serialize(resultOf(checked(JSON.parse(line)))) + '\n'))
}

async function * results (rows: AsyncIterable<unknown>): AsyncGenerator<string> {
  for await (const row of rows) yield serialize(resultOf(checked(row))) + '\n'
}

async function main (): Promise<void> {
  const app = Fastify()
  app.addContentTypeParser('application/jsonl', (_request, payload, done) => done(null, payload))
  app.post('/rows', (request, reply) => {
    reply.type('application/jsonl').send(HANDLERS[process.argv[2]](request.body as Readable))
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  serve(app.server)
}

main()
