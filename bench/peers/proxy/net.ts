// Bare sockets, piped into each other: a TCP proxy, as HAProxy and nginx can be one.

import { connect, createServer } from 'node:net'
import { serve } from '../serve.ts'

const port = Number(process.argv[2])

serve(createServer({ noDelay: true, allowHalfOpen: true }, (client) => {
  const origin = connect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true })
  client.on('error', () => origin.destroy()).on('close', () => origin.destroy())
  origin.on('error', () => client.destroy()).on('close', () => client.destroy())
  client.pipe(origin)
  origin.pipe(client)
}))
