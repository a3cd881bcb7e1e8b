// @fastify/websocket: sends each message back.

import websocket from '@fastify/websocket'
import Fastify from 'fastify'
import { serve } from './serve.ts'

async function main (): Promise<void> {
  const app = Fastify()
  await app.register(websocket)
  app.get('/echo', { websocket: true }, (socket) => {
    socket.on('message', (message, isBinary) => socket.send(message, { binary: isBinary }))
  })
  await app.listen({ port: 0, host: '127.0.0.1', backlog: 4096 })
  serve(app.server)
}

main()
