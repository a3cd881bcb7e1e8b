// The plugin, as a table of contents: options, servers, decorators, the hooks that make routes duplex, closing.

import type { Server } from 'node:http'
import { Server as NetServer } from 'node:net'
import type { FastifyInstance, RegisterOptions } from 'fastify'
import fp from 'fastify-plugin'
import type { FastifyDuplexOptions } from '../types/index.d.ts'
import { injectDuplex } from './client/inject.ts'
import { FastifyError, RegisteredError } from './errors.ts'
import { rateWatchOf } from './exchange/rate-watch.ts'
import { Registry } from './exchange/registry.ts'
import { wrapGenerator } from './fastify/handler.ts'
import { hasInjectedBody, keepSignalDuring, makeTargetRoutable, missingFromFastify, otherServers, prepareRequests, prependOnRoute, restoreTargets, surroundPreClose } from './fastify/internals.ts'
import { makeDuplex, noteWebSocketRoute } from './fastify/route.ts'
import { type RouteSetup, getAuthority, getDuplex } from './fastify/route-exchange.ts'
import { checkAllSeen } from './fastify/unseen-routes.ts'
import { gateOf } from './handoff/gate.ts'
import { missingFromNode } from './handoff/probe.ts'
import { isWatchedByOther, routeStreams, watch } from './handoff/server.ts'
import { WebSocketRoutes } from './handoff/websocket-routes.ts'
import { otherRuntime } from './node/runtime.ts'
import { DEFAULT_OPTIONS, MAX_TIMEOUT, type ResolvedOptions, resolveOptions } from './options.ts'
import { IdleWatch } from './transport/idle-watch.ts'
import { claimRaw } from './transport/raw.ts'
import type { App } from './transport/transport.ts'

async function duplex (app: FastifyInstance, options: FastifyDuplexOptions): Promise<void> {
  if (app.hasDecorator('injectDuplex')) throw new RegisteredError()
  const missing = missingFromFastify(app)
  if (missing !== null) throw new FastifyError(app.version, missing)
  const { prefix, logLevel, logSerializers, ...duplexOptions } = options as FastifyDuplexOptions & RegisterOptions // the first three are Fastify's
  const setup = setUp(app.server, resolveOptions(duplexOptions, DEFAULT_OPTIONS))
  const { registry, gate } = setup

  const obstacle = findObstacle(app)
  if (obstacle !== null) {
    app.log.warn(`fastify-duplex cannot take connections: ${obstacle}`)
  } else {
    watch(app.server as Server, gate)
    app.addHook('onListen', function () {
      for (const server of otherServers(this)) watch(server, gate)
    })
  }

  app.addHook('onReady', async function () {
    checkAllSeen(this)
    for (const compile of setup.compileWhenReady) compile()
    // Behind the last preClose hook, Fastify waits for open connections, or destroys them if `forceCloseConnections` is set. The
    // hooks of the app and of other plugins run while the exchanges end.
    surroundPreClose(this, () => { startClosing(setup) }, () => registry.whenEmpty(closeTimeout(app)))
    if (!gate.routesConnect) return
    restoreTargets(this)
    if ((this.initialConfig as { http2?: boolean }).http2) routeStreams(this.server as Server, gate)
  })

  app.decorate('duplex', Object.freeze({ exchanges: () => registry.exchanges() }))
  app.decorate('injectDuplex', injectDuplex)
  app.decorateRequest('authority', { getter: getAuthority })
  app.decorateReply('duplex', { getter: getDuplex })
  prepareRequests(app)
  prependOnRoute(app, (route) => {
    noteWebSocketRoute(route, gate)
    wrapGenerator(route)
  })
  app.addHook('onRoute', function (route) {
    makeDuplex.call(this, route, setup)
  })
}

function setUp (server: object, options: ResolvedOptions): RouteSetup {
  const registry = new Registry()
  const app: App = { get isClosing () { return registry.isClosing }, draining: new Set(), keepSignalDuring, hasInjectedBody }
  const idleWatch = new IdleWatch(options.idleTimeout)
  const gate = gateOf(server, () => ({
    routesConnect: false,
    webSocketRoutes: new WebSocketRoutes(),
    onConnect: makeTargetRoutable,
    onUnclaimedConnect (request) { claimRaw(request, app, idleWatch, options)?.refuse() }
  }))
  return { options, registry, app, idleWatch, rateWatch: rateWatchOf(options), admitted: { count: 0 }, gate, items: null, warnings: new Set(), compileWhenReady: [] }
}

function startClosing ({ registry, app }: RouteSetup): void {
  registry.startClosing()
  for (const connection of app.draining) connection.leaveServer()
}

/** Why the connections of the app's server cannot be borrowed, and what that means, in words for a log line; null if they can. */
function findObstacle (app: FastifyInstance): string | null {
  const runtime = otherRuntime()
  if (runtime !== null) {
    return `${runtime} reads and writes them itself. Routes are full duplex all the same, but 101, CONNECT and detach() are answered with 501, and a client that ends its side gets no response after that`
  }
  if (!(app.server instanceof NetServer)) return 'the server of this serverFactory is none of Node\'s. It will read and write them itself'
  if (isWatchedByOther(app.server as Server)) return 'another copy of fastify-duplex has taken them. Node will read and write them itself'
  const missing = missingFromNode()
  return missing === null ? null : `Node ${process.version} does not have the ${missing} it needs. Node will read and write them itself`
}

/** The part of `pluginTimeout` that the last preClose hook uses. */
const CLOSE_TIMEOUT_SHARE = 0.9

/**
 * Milliseconds that the last preClose hook may take. Fastify's limit for it is `pluginTimeout`. If a hook takes longer, `app.close()`
 * fails.
 */
function closeTimeout (app: FastifyInstance): number {
  const { pluginTimeout } = app.initialConfig
  return pluginTimeout ? pluginTimeout * CLOSE_TIMEOUT_SHARE : MAX_TIMEOUT
}

/** As in `peerDependencies`. Before 5.8.1, bodies reach the content-type parsers, or a client can end the process. */
const FASTIFY_RANGE = '^5.8.1 || ^6.0.0-alpha.4'

const fastifyDuplex = fp(duplex, { fastify: FASTIFY_RANGE, name: 'fastify-duplex' })

export default fastifyDuplex
export { fastifyDuplex }
