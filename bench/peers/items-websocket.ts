// @fastify/websocket: one message for each row, and one for each result.

import websocket from '@fastify/websocket'
import Fastify from 'fastify'
import { checked, resultOf, serialize } from '../rows.ts'
import { serve } from './serve.ts'

async function main (): Promise<void> {
  const app = Fastify()
  await app.register(websocket)
  app.get('/rows', { websocket: true }, (socket) => {
    socket.on('message', (message) => socket.send(serialize(resultOf(checked(JSON.parse(String(message))))), { binary: true }))
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  serve(app.server)
}

main()
