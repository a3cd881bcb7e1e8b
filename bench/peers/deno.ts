// Deno.serve: answers with the body of the request.

import { announce } from './serve.ts'
import { answer } from './web.ts'

interface DenoServe {
  serve (options: { port: number, hostname: string, onListen: () => void }, handler: (request: Request) => Promise<Response>): { addr: { port: number } }
}

const { Deno } = globalThis as unknown as { Deno: DenoServe }

announce({ port: Deno.serve({ port: 0, hostname: '127.0.0.1', onListen () {} }, answer).addr.port })
