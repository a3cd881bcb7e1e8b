// A forward proxy for CONNECT: who may use it, and where to, is a matter of hooks. `npm run example:proxy`, and then
// `curl -x http://user:secret@127.0.0.1:3128 https://example.com`. ALLOW is a list like `example.com:443,*.example.org:443`.

import { once } from 'node:events'
import net from 'node:net'
import { pipeline } from 'node:stream/promises'
import type { FastifyInstance } from 'fastify'
import { listen } from './listen.ts'

export interface ProxyOptions {
  /** `host:port`; `*.` in front stands for all names below */
  allow: string[]
  /** What a client must send: `user:password` */
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
      return reply.code(407).header('proxy-authenticate', 'Basic realm="proxy"').send('Who are you?\n')
    },
    handler: async (request, reply) => {
      const { host, port } = request.authority!
      if (!allow.some((rule) => matches(rule, host, port))) return reply.code(403).send(`Not to ${host}:${port}\n`)
      const upstream = net.connect({ host, port, allowHalfOpen: true })
      try {
        await once(upstream, 'connect')
      } catch (error) {
        request.log.info({ err: error }, 'upstream')
        return reply.code(502).send(`No way to ${host}:${port}\n`)
      }
      // Each half ends on its own; a side that fails takes the other with it.
      const { duplex } = reply
      upstream.on('error', (error) => duplex.destroy(error))
      duplex.on('close', () => upstream.destroy())
      await Promise.all([pipeline(duplex, upstream), pipeline(upstream, duplex)])
    }
  })
}

function matches (rule: string, host: string, port: number): boolean {
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
