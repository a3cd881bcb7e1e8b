// The app of one child process, on the transport of its profile. Each handler has two routes: below /quick and /patient.

import { readFileSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify, { type FastifyInstance } from 'fastify'
import duplex from '../../../lib/index.ts'
import { addLaterConstraint } from '../../support/later-constraint.ts'
import type { Audit } from './audit.ts'
import { type Handler, README_HANDLERS, pathOf } from './handlers.ts'
import { addHooks } from './hooks.ts'
import { CENSUS_LIMIT, CLOSE_GRACE, DRAIN_TIMEOUT, IDLE, KEEP_ALIVE, type Pace } from './limits.ts'
import type { Transport } from './kinds.ts'
import type { Profile } from './profile.ts'
import { SLOPPY_HANDLERS } from './sloppy-handlers.ts'

/** Relative to the compiled file. */
const TLS_FOLDER = join(__dirname, '../../../../../support/tls')
export const TLS = { key: readFileSync(join(TLS_FOLDER, 'key.pem')), cert: readFileSync(join(TLS_FOLDER, 'cert.pem')) }

/** `maxExchanges`. At the end of a child, so many must be admitted again, or the plugin has not released them all. */
export const MAX_EXCHANGES = 250
/** More than the buffers of a connection on 127.0.0.1 hold. */
const BIG = Buffer.alloc(12 * 1024 * 1024, 'b')
const SLOW_MS = 20

export const HANDLERS = { ...README_HANDLERS, ...SLOPPY_HANDLERS }
const METHODS = ['GET', 'POST', 'PUT', 'DELETE']

export interface Served {
  app: FastifyInstance
  address: net.NetConnectOpts
}

/** @param onSmuggled is called for a request that a client sent only as part of the body of another */
export async function serve (profile: Profile, audit: Audit, onSmuggled: (id: string) => void): Promise<Served> {
  const app = Fastify({
    ...serverOptions(profile.transport),
    logger: profile.logger && { stream: { write () {} } },
    genReqId: (request: http.IncomingMessage) => String(request.headers['x-id'] ?? 'none'),
    forceCloseConnections: profile.forceCloseConnections,
    keepAliveTimeout: KEEP_ALIVE,
    connectionTimeout: profile.connectionTimeout,
    ...(profile.handlerTimeout > 0 ? { handlerTimeout: profile.handlerTimeout } : {})
  } as {}) as FastifyInstance
  audit.addHooks(app)
  // The mark is in a field, because a later hook may fail and replace the content.
  app.addHook('onRequest', async (request, reply) => { if (request.url === '/pong') reply.header('x-pong', `pong-${request.id}.`) })
  addHooks(app, profile)
  await app.register(duplex, { closeGrace: CLOSE_GRACE, drainTimeout: DRAIN_TIMEOUT, maxExchanges: MAX_EXCHANGES })
  addOrdinaryRoutes(app, onSmuggled)
  const isLater = profile.transport === 'async constraint'
  if (isLater) addLaterConstraint(app)
  const constraints = isLater ? { later: 'yes' } : {}
  for (const [name, { run }] of Object.entries(HANDLERS)) {
    for (const [pace, idleTimeout] of Object.entries(IDLE) as [Pace, number][]) {
      app.route({ method: METHODS, url: pathOf(pace, name), duplex: { idleTimeout }, config: { audited: true }, constraints, handler: run } as never)
    }
  }
  app.post('/hold', { duplex: { idleTimeout: CENSUS_LIMIT }, config: { audited: true }, constraints } as {}, async (request, { duplex }) => {
    audit.countAdmitted()
    duplex.flushHeaders()
    await pipeline(duplex, duplex)
  })
  if (profile.connect) addConnectRoute(app, constraints)
  // With the memory transport the app listens, too: some checks use ordinary connections.
  const path = join(tmpdir(), `fastify-duplex-hunt-${process.pid}.sock`)
  await app.listen(profile.transport === 'unix' ? { path } : { port: 0, host: '127.0.0.1' })
  const bound = app.server.address()
  return { app, address: typeof bound === 'string' ? { path: bound } : { port: bound!.port, host: '127.0.0.1' } }
}

function serverOptions (transport: Transport): object {
  if (transport === 'tls') return { https: TLS }
  if (transport === 'h2c') return { http2: true }
  if (transport === 'h2') return { http2: true, https: TLS }
  if (transport === 'http/1 of h2') return { http2: true, https: { ...TLS, allowHTTP1: true } }
  if (transport === 'server factory') return { serverFactory: createNestedServer }
  return {}
}

/** Node's HTTP server behind a net.Server. The server that Fastify knows emits 'connection', but never 'request'. */
function createNestedServer (onRequest: http.RequestListener): net.Server {
  const inner = http.createServer({ keepAliveTimeout: KEEP_ALIVE }, onRequest)
  const outer = net.createServer({ allowHalfOpen: true }, (socket) => inner.emit('connection', socket))
  return Object.assign(outer, { setTimeout: () => outer, closeIdleConnections: () => inner.closeIdleConnections(), closeAllConnections: () => inner.closeAllConnections() })
}

function addOrdinaryRoutes (app: FastifyInstance, onSmuggled: (id: string) => void): void {
  app.get('/pong', async () => 'pong')
  app.get('/big', async () => BIG)
  app.get('/slow', async () => {
    await sleep(SLOW_MS)
    return 'slow'
  })
  app.all('/smuggled', async (request) => {
    onSmuggled(request.id)
    return 'smuggled'
  })
}

function addConnectRoute (app: FastifyInstance, constraints: object): void {
  app.addHttpMethod('CONNECT')
  const handler: Handler = function (this: unknown, request, reply) {
    return HANDLERS[String(request.headers['x-handler'])].run.call(this, request, reply)
  }
  app.route({ method: 'CONNECT', url: '*', duplex: { idleTimeout: IDLE.quick }, config: { audited: true }, constraints, handler } as never)
}
