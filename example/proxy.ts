// A forward proxy for CONNECT. It checks the credentials of the client in a hook, and the target against an allow-list.
// Run `npm run example:proxy`, and then `curl -x http://user:secret@127.0.0.1:3128 https://example.com`.
// Set ALLOW to a list of other targets, for example `example.com:443,*.example.org:443`.

import { once } from 'node:events'
import net from 'node:net'
import { pipeline } from 'node:stream/promises'
import type { FastifyInstance } from 'fastify'
import { listen } from './listen.ts'

export interface ProxyOptions {
  /** Targets, as `host:port`. `*.` at the start of a host means all its subdomains. */
  allow: string[]
  /** The credentials that a client must send, as `user:password`. */
  credentials: string
}

export async function proxy (app: FastifyInstance, { allow, credentials }: ProxyOptions): Promise<void> {
  const expected = `Basic ${Buffer.from(credentials).toString('base64')}`

  app.addHttpMethod('CONNECT')
  app.route({
    method: 'CONNECT',
    url: '*',
    duplex: { idleTimeout: 60_000, maxExchanges: 1000 },
    onRequest: async (request, reply) => {
      if (request.headers['proxy-authorization'] === expected) return
      return reply.code(407).header('proxy-authenticate', 'Basic realm="proxy"').send('Authentication required\n')
    },
    handler: async (request, reply) => {
      const { host, port } = request.authority!
      if (!allow.some((rule) => isTarget(rule, host, port))) return reply.code(403).send(`Not allowed: ${host}:${port}\n`)
      const upstream = net.connect({ host, port, allowHalfOpen: true })
      try {
        await once(upstream, 'connect')
      } catch (error) {
        request.log.info({ err: error }, 'cannot connect to the target')
        return reply.code(502).send(`Cannot connect to ${host}:${port}\n`)
      }
      // Each half ends on its own. If one side fails, the other is destroyed too.
      const { duplex } = reply
      upstream.on('error', (error) => duplex.destroy(error))
      duplex.on('close', () => upstream.destroy())
      await Promise.all([pipeline(duplex, upstream), pipeline(upstream, duplex)])
    }
  })
}

function isTarget (rule: string, host: string, port: number): boolean {
  const colon = rule.lastIndexOf(':')
  const name = rule.slice(0, colon).toLowerCase()
  if (Number(rule.slice(colon + 1)) !== port) return false
  return name.startsWith('*.') ? host.toLowerCase().endsWith(name.slice(1)) : host.toLowerCase() === name
}

async function main (): Promise<void> {
  const { ALLOW = 'example.com:443', CREDENTIALS = 'user:secret' } = process.env
  await listen((app) => app.register(proxy, { allow: ALLOW.split(','), credentials: CREDENTIALS }), { port: 3128, level: 'info' })
}

if (require.main === module) main()
