// The plugin: options, the hook that makes routes duplex, the decorators, the servers.

import type { Server } from 'node:http'
import { Server as NetServer } from 'node:net'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import type { FastifyDuplexOptions } from '../types/index.d.ts'
import { IdleWatch } from './carrier/idle-watch.ts'
import { claimSocket } from './carrier/socket.ts'
import { FastifyError } from './errors.ts'
import { Registry } from './exchange/registry.ts'
import { missingFromFastify, otherServers, prependOnRoute, restoreTargets } from './fastify-internals.ts'
import { injectDuplex } from './inject/index.ts'
import { type Gate, missingFromNode, routeStreams, watch } from './handoff.ts'
import { DEFAULT_OPTIONS, resolveOptions } from './options.ts'
import { otherRuntime } from './runtime.ts'
import { type RouteSetup, getAuthority, getDuplex, makeDuplex, runGenerators } from './route.ts'

async function duplex (app: FastifyInstance, options: FastifyDuplexOptions): Promise<void> {
  const lacks = missingFromFastify(app)
  if (lacks !== null) throw new FastifyError(app.version, lacks)
  const registry = new Registry()
  const defaults = resolveOptions(options, DEFAULT_OPTIONS)
  const idleWatch = new IdleWatch(defaults.idleTimeout)
  const gate: Gate = { connect: false, onUnclaimedConnect: (request) => { claimSocket(request, registry, idleWatch, defaults)?.refuse() } }
  const setup: RouteSetup = { options: defaults, registry, idleWatch, admitted: { count: 0 }, gate }

  const obstacle = findObstacle(app)
  if (obstacle !== null) {
    app.log.warn(`fastify-duplex cannot take connections: ${obstacle}`)
  } else {
    watch(app.server as Server, setup.gate)
    app.addHook('onListen', function () {
      for (const server of otherServers(this)) watch(server, setup.gate)
    })
  }

  app.addHook('onReady', async function () {
    if (!setup.gate.connect) return
    restoreTargets(this)
    if ((this.initialConfig as { http2?: boolean }).http2) routeStreams(this.server as Server)
  })

  app.decorate('injectDuplex', injectDuplex)
  app.decorateRequest('authority', { getter: getAuthority })
  app.decorateReply('duplex', { getter: getDuplex })
  prependOnRoute(app, runGenerators)
  app.addHook('onRoute', function (route) {
    makeDuplex.call(this, route, setup)
  })
  // After this hook the server waits for its open connections by itself, but with `forceCloseConnections` Fastify
  // destroys them.
  app.addHook('preClose', () => registry.close(patience(app)))
}

/** What keeps us from the raw connections of the app's server, if anything, and what that means. */
function findObstacle (app: FastifyInstance): string | null {
  const runtime = otherRuntime()
  if (runtime !== null) {
    return `${runtime} reads and writes them itself. Routes are full duplex all the same, but 101, CONNECT and detach() are answered with 501, and a client that ends its side gets no response after that`
  }
  if (!(app.server instanceof NetServer)) return 'the server of this serverFactory is none of Node\'s. It will read and write them itself'
  const missing = missingFromNode()
  return missing === null ? null : `Node ${process.version} does not have the ${missing} it needs. Node will read and write them itself`
}

/** Fastify gives a preClose hook as long as a plugin to load, and fails to close when it takes longer. */
function patience (app: FastifyInstance): number {
  const { pluginTimeout } = app.initialConfig
  return pluginTimeout ? pluginTimeout * 0.9 : 2 ** 31 - 1
}

/** As in `peerDependencies`: before 5.8.1 a body reaches the content-type parsers, or a client can end the process. */
const FASTIFY_RANGE = '^5.8.1 || ^6.0.0-alpha.4'

const fastifyDuplex = fp(duplex, { fastify: FASTIFY_RANGE, name: 'fastify-duplex' })

export default fastifyDuplex
export { fastifyDuplex }
