// Duplex routes together with other plugins that augment Fastify's types.

// Under `node16` its default export cannot be imported. Only its augmentation of Fastify's types is used.
import type {} from '@fastify/sse'
import swagger from '@fastify/swagger'
import websocket from '@fastify/websocket'
import Fastify from 'fastify'
import duplex, { type DuplexHandler } from 'fastify-duplex'

const upper: DuplexHandler = async function * (request, reply) {
  for await (const chunk of reply.duplex) yield String(chunk).toUpperCase()
}

export const app = Fastify()
app.register(websocket)
app.register(swagger, { openapi: { info: { title: 'neighbours', version: '1' } } })
app.register(duplex)

app.get('/socket', { websocket: true }, (socket, request) => { socket.send(request.url) })
app.get('/events', { sse: true }, async (request, reply) => { await reply.sse.send({ data: request.url }) })
app.post('/upper', { duplex: true, schema: { summary: 'upper case', tags: ['text'] } }, upper)
app.route({ method: 'GET', url: '/both', duplex: { idleTimeout: 1000 }, handler: upper, wsHandler: (socket) => socket.close() })
app.get('/plain', async (request) => ({ url: request.url }))
// @ts-expect-error no such option
app.post('/typo', { duplex: { idleTimeOut: 1 } }, upper)
app.after(() => app.swagger())
