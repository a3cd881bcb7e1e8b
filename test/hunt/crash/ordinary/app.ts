// Two apps with the same ordinary routes and timeouts: one with the plugin, and one without it.

import { pipeline } from 'node:stream/promises'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { AddressInfo } from 'node:net'
import type { IncomingMessage } from 'node:http'
import Fastify, { type FastifyInstance } from 'fastify'
import duplex from '../../../../lib/index.ts'
import { MAX_EXCHANGES, TLS } from '../app.ts'
import type { Audit } from '../audit.ts'
import { CENSUS_LIMIT, CLOSE_GRACE, DRAIN_TIMEOUT } from '../limits.ts'
import type { Profile } from '../profile.ts'
import { Log } from './log.ts'

const CHECKING_INTERVAL = 40
const SLOW_MS = 20
/** Longer than all timeouts, but shorter than a client waits. */
const WAIT_MS = 600
/** More than the buffers of a connection on 127.0.0.1 hold. */
const BIG = Buffer.alloc(12 * 1024 * 1024, 'b')
const BLOCK = BIG.subarray(0, 64 * 1024)

export interface Pair {
  app: FastifyInstance
  plain: FastifyInstance
  address: { port: number, host: string }
  plainAddress: { port: number, host: string }
  log: Log
  plainLog: Log
}

export async function servePair (profile: Profile, audit: Audit): Promise<Pair> {
  const [log, plainLog] = [new Log(), new Log()]
  const [app, plain] = [createApp(profile, log), createApp(profile, plainLog)]
  audit.addHooks(app)
  await app.register(duplex, { closeGrace: CLOSE_GRACE, drainTimeout: DRAIN_TIMEOUT, maxExchanges: MAX_EXCHANGES, idleTimeout: CENSUS_LIMIT })
  app.post('/duplex', { duplex: true, config: { audited: true } } as {}, async (request, reply) => pipeline(reply.duplex, reply.duplex))
  app.post('/hold', { duplex: true, config: { audited: true } } as {}, async (request, reply) => {
    audit.countAdmitted()
    reply.duplex.flushHeaders()
    await pipeline(reply.duplex, reply.duplex)
  })
  plain.post('/duplex', async (request, reply) => reply.send(request.body))
  for (const one of [app, plain]) addRoutes(one)
  const listen = async (one: FastifyInstance): Promise<{ port: number, host: string }> => {
    await one.listen({ port: 0, host: '127.0.0.1' })
    return { port: (one.server.address() as AddressInfo).port, host: '127.0.0.1' }
  }
  return { app, plain, log, plainLog, address: await listen(app), plainAddress: await listen(plain) }
}

function createApp (profile: Profile, log: Log): FastifyInstance {
  const server = { connectionsCheckingInterval: CHECKING_INTERVAL }
  const app = Fastify({
    ...(profile.transport === 'ordinary, tls' ? { https: { ...TLS, ...server } } : { http: server }),
    logger: profile.logger && { stream: { write () {} } },
    genReqId: (request: IncomingMessage) => String(request.headers['x-id'] ?? 'none'),
    forceCloseConnections: true,
    ...profile.timeouts
  } as {}) as FastifyInstance
  // From Node 24 on, this adds a second to the keepAliveTimeout by default.
  Object.assign(app.server, { keepAliveTimeoutBuffer: 0 })
  log.addHooks(app)
  return app
}

function addRoutes (app: FastifyInstance): void {
  app.addContentTypeParser('application/octet-stream', (request, payload, done) => done(null, payload))
  app.get('/pong', async () => 'pong')
  app.get('/big', async () => BIG)
  app.get('/stream', async (request, reply) => reply.send(Readable.from(function * () { for (let i = 0; i < BIG.length / BLOCK.length; i++) yield BLOCK }())))
  app.get('/slow', async () => {
    await sleep(SLOW_MS)
    return 'slow'
  })
  app.get('/wait', async (request) => {
    await sleep(WAIT_MS, undefined, { signal: request.signal }).catch(() => {})
    return 'waited'
  })
  app.get('/error', async () => { throw new Error('of a handler') })
  app.post('/body', async (request) => request.body)
  app.post('/unread', async () => 'unread')
}
