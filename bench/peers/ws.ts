// ws: sends each message back.

import { createServer } from 'node:http'
import { WebSocketServer } from 'ws'
import { serve } from './serve.ts'

const server = createServer()
new WebSocketServer({ server }).on('connection', (socket) => {
  socket.on('error', () => {})
  socket.on('message', (message, isBinary) => socket.send(message, { binary: isBinary }))
})
serve(server)
