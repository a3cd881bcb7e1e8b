// Duplex routes with Zod's type provider.

import Fastify from 'fastify'
import duplex, { type HttpDuplex } from 'fastify-duplex'
import { type ZodTypeProvider, serializerCompiler, validatorCompiler } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { exactly } from './exactly.js'

export const zod = Fastify().withTypeProvider<ZodTypeProvider>().setValidatorCompiler(validatorCompiler).setSerializerCompiler(serializerCompiler)
zod.register(duplex, { idleTimeout: 1000 })
zod.post('/:id', {
  duplex: { bodyLimit: 100 },
  schema: { params: z.object({ id: z.coerce.number() }), response: { 200: z.object({ rows: z.number() }) } }
}, async (request, reply) => {
  exactly<number>()(request.params.id)
  exactly<HttpDuplex>()(reply.duplex)
  // @ts-expect-error no such parameter
  request.params.name.trim()
  return { rows: 1 }
})
zod.route({
  method: 'PUT',
  url: '/:id',
  duplex: true,
  schema: { params: z.object({ id: z.coerce.number() }) },
  handler: async function * (request, reply) {
    exactly<number>()(request.params.id)
    yield * reply.duplex
  }
})
