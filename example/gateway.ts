// A gateway in front of another server. A hook checks the token of the client. The server gets the name of its user in a field, and
// not the token. `/api/…` of the gateway is `/v1/…` of the server. Bodies pass in both directions at once, and so does WebSocket.
// `npm run example:gateway` is a gateway to the server of `npm start`, which has to run in another terminal.

import { createHash, timingSafeEqual } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import { duplexProxy } from 'fastify-duplex/proxy'
import { listen } from './listen.ts'

declare module 'fastify' {
  interface FastifyRequest { username: string }
}

export interface GatewayOptions {
  /** The server, such as `http://127.0.0.1:3000`. */
  upstream: string
  /** Where the server has its API. Default: `/v1` */
  path?: string
  /** The names of the users by their tokens. */
  users: Record<string, string>
}

export async function gateway (app: FastifyInstance, { upstream, path = '/v1', users }: GatewayOptions): Promise<void> {
  app.decorateRequest('username', '')

  // Runs before a byte goes to the server. The rest of a request that is refused is not passed on.
  app.addHook('onRequest', async (request, reply) => {
    const [scheme, token = ''] = (request.headers.authorization ?? '').split(' ')
    const known = Object.keys(users).find((each) => isSame(each, token))
    if (scheme.toLowerCase() !== 'bearer' || known === undefined) {
      return reply.code(401).header('www-authenticate', 'Bearer').send({ statusCode: 401, error: 'Unauthorized', message: 'A token is required' })
    }
    request.username = users[known]
  })

  await app.register(duplexProxy, {
    prefix: '/api',
    rewritePrefix: path,
    upstream,
    forwarded: true,
    rewriteRequest: (head, { username }) => {
      // The server trusts x-user. What the client sends under this name is replaced.
      const { authorization, cookie, ...headers } = head.headers
      return { ...head, headers: { ...headers, 'x-user': username } }
    }
  })
}

/** Takes the same time wherever the two differ. */
function isSame (one: string, other: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(one), digest(other))
}

async function main (): Promise<void> {
  const address = await listen((app) => app.register(gateway, { upstream: 'http://127.0.0.1:3000', path: '', users: { secret: 'ann' } }), { port: 8080 })
  console.log(`Listening on ${address}. Try:

  (printf one; sleep 1; printf two) | curl -sN -T . -H 'authorization: Bearer secret' ${address}/api/upper`)
}

if (require.main === module) main()
