// A bare socket: pipes it into itself.

import { createServer } from 'node:net'
import { serve } from './serve.ts'

serve(createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => {})
  socket.pipe(socket)
}))
