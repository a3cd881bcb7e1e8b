// @fastify/http-proxy, with as many connections as the measures need.

import httpProxy from '@fastify/http-proxy'
import Fastify from 'fastify'
import { serve } from '../serve.ts'

async function main (): Promise<void> {
  const app = Fastify()
  await app.register(httpProxy, { upstream: `http://127.0.0.1:${process.argv[2]}`, undici: { connections: 10_000, pipelining: 1 } })
  await app.listen({ port: 0, host: '127.0.0.1', backlog: 4096 })
  serve(app.server)
}

main()
