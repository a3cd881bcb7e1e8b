// Duplex routes with the common type providers.

import type { JsonSchemaToTsProvider } from '@fastify/type-provider-json-schema-to-ts'
import { type TypeBoxTypeProvider, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox'
import Fastify from 'fastify'
import duplex, { type Authority, type FramingKind, type HttpDuplex, type Trailers } from 'fastify-duplex'
import { jsonl } from 'fastify-duplex/items'
import { Type } from 'typebox'
import { exactly } from './exactly.js'

export const typeBox = Fastify().withTypeProvider<TypeBoxTypeProvider>().setValidatorCompiler(TypeBoxValidatorCompiler)
typeBox.register(duplex)
typeBox.post('/:id', {
  duplex: true,
  schema: { params: Type.Object({ id: Type.Integer() }), response: { 200: Type.Object({ rows: Type.Integer() }) } }
}, async function * (request, reply) {
  exactly<number>()(request.params.id)
  exactly<HttpDuplex>()(reply.duplex)
  exactly<Authority | null>()(request.authority)
  exactly<FramingKind>()(reply.duplex.framing.request)
  exactly<Trailers>()(reply.duplex.trailers)
  // @ts-expect-error no such parameter
  request.params.name.trim()
  for await (const chunk of reply.duplex) yield String(chunk)
})

// @ts-expect-error neither bytes nor text
typeBox.post('/mistake', { duplex: true }, async function * (request, reply) { yield { rows: 1 } })
// @ts-expect-error
typeBox.route({ method: 'POST', url: '/mistake', duplex: true, async * handler (request, reply) { yield { rows: 1 } } })
// @ts-expect-error it receives items, but sends bytes
typeBox.post('/mistake', { duplex: { receive: jsonl(Type.Object({ id: Type.Integer() })) } }, async function * (request, reply) { yield { rows: 1 } })
typeBox.post('/unknown', { duplex: true }, (request, reply): unknown => reply.send({ rows: 1 }))
typeBox.post('/value', { duplex: true }, async (request, reply) => ({ rows: reply.statusCode }))

export const jsonSchema = Fastify().withTypeProvider<JsonSchemaToTsProvider>()
jsonSchema.register(duplex)
jsonSchema.post('/:id', {
  duplex: true,
  schema: { params: { type: 'object', properties: { id: { type: 'integer' } }, required: ['id'] } } as const
}, async function * (request, reply) {
  exactly<number>()(request.params.id)
  exactly<HttpDuplex>()(reply.duplex)
  for await (const chunk of reply.duplex) yield String(chunk)
})
