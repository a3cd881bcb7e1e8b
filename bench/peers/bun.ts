// Bun.serve: answers with the body of the request.

import { announce } from './serve.ts'
import { answer } from './web.ts'

interface BunServe {
  serve (options: { port: number, hostname: string, idleTimeout: number, fetch: (request: Request) => Promise<Response> }): { port: number }
}

const { Bun } = globalThis as unknown as { Bun: BunServe }

announce({ port: Bun.serve({ port: 0, hostname: '127.0.0.1', idleTimeout: 0, fetch: answer }).port })
