// The plugin. The argument chooses one of the ways to answer items: `yield`, `send` or `batches`.

import { once } from 'node:events'
import { type TypeBoxTypeProvider, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox'
import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import { jsonl } from 'fastify-duplex/items'
import { ResultSchema, RowSchema, resultOf } from '../rows.ts'
import { serve } from './serve.ts'

async function main (way: string): Promise<void> {
  const app = Fastify().setValidatorCompiler(TypeBoxValidatorCompiler).withTypeProvider<TypeBoxTypeProvider>()
  await app.register(duplex)
  const options = { duplex: { receive: jsonl(RowSchema), send: jsonl(ResultSchema) } }

  if (way === 'yield') {
    app.post('/rows', options, async function * (_request, reply) {
      for await (const row of reply.duplex.items) yield resultOf(row)
    })
  }

  if (way === 'send') {
    app.post('/rows', options, async (_request, reply) => {
      const stream = reply.duplex
      for await (const row of stream.items) {
        if (!stream.send(resultOf(row))) await once(stream, 'drain')
      }
      stream.end()
    })
  }

  if (way === 'batches') {
    app.post('/rows', options, async (_request, reply) => {
      const stream = reply.duplex
      for await (const rows of stream.items.batches()) {
        let hasRoom = true
        for (const row of rows) hasRoom = stream.send(resultOf(row))
        if (!hasRoom) await once(stream, 'drain')
      }
      stream.end()
    })
  }

  await app.listen({ port: 0, host: '127.0.0.1' })
  serve(app.server)
}

main(process.argv[2])
