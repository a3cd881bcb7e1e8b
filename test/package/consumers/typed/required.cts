// In CommonJS the exported function is also its own `default`.

import Fastify = require('fastify')
import duplex = require('fastify-duplex')

export const app = Fastify()
app.register(duplex)
export const target: duplex.Authority = { host: 'a', port: 1 }
export const fields: duplex.OutgoingFields = { a: [1, 'b'] }
app.register(duplex.fastifyDuplex, { closeGrace: 0 })
app.post('/echo', { duplex: true }, async (request, reply) => { reply.duplex.pipe(reply.duplex) })
