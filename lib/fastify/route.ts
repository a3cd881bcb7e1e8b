// What `duplex: true` does to a route. The route keeps its place in Fastify's life cycle: every hook runs, and sees the true
// method and headers. Only two things differ: the body is not parsed, and the handler gets `reply.duplex`.

import type { IncomingMessage } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import type { FastifyDuplexOptions } from '../../types/index.d.ts'
import { AbortedError, BodySchemaError, TruncatedError } from '../errors.ts'
import { type DeclaredItems, optionsOfRoute, resolveOptions } from '../options.ts'
import type { Gate } from '../handoff/gate.ts'
import { kPassesHandshakes } from '../handoff/websocket-routes.ts'
import { rateWatchOf } from '../exchange/rate-watch.ts'
import { IdleWatch } from '../transport/idle-watch.ts'
import { claimRaw } from '../transport/raw.ts'
import { skipBodyParsing } from './admission.ts'
import { wrapHandler, wrapRouteErrorHandler } from './handler.ts'
import { ItemFormats } from './item-formats.ts'
import { type LoggerFactory, logDetached, logPrematureClose, restoreParameter } from './internals.ts'
import { RouteExchange, type RouteSetup, exchangeOf, setExchange } from './route-exchange.ts'
import { markSeen } from './unseen-routes.ts'

/**
 * The onRoute hook: makes a route duplex if it has `duplex` set.
 *
 * @param plugin what the routes share by default
 * @throws {BodySchemaError} FST_ERR_DUPLEX_BODY_SCHEMA
 * @throws {OptionError} FST_ERR_DUPLEX_OPTION
 */
export function makeDuplex (this: FastifyInstance, route: RouteOptions, plugin: RouteSetup): void {
  markSeen(route)
  const routeOptions = optionsOfRoute(route.duplex)
  const isConnect = [route.method].flat().includes('CONNECT')
  if (isConnect) (route as { onRequest?: unknown }).onRequest = [restoreParameter, route.onRequest ?? []].flat()
  if (routeOptions === null) return
  if ((route.schema as { body?: unknown } | undefined)?.body !== undefined) {
    throw new BodySchemaError(String(route.method), route.url)
  }
  if (isConnect) plugin.gate.routesConnect = true
  const setup = setUp(plugin, routeOptions, route.bodyLimit)
  if (setup.items !== null) plugin.compileWhenReady.push(() => setup.items!.compile(this, route))
  const options = route as RouteOptions & Record<'childLoggerFactory' | 'preParsing' | 'onResponse' | 'errorHandler', any>
  options.childLoggerFactory = claimWithLogger(options.childLoggerFactory ?? this.childLoggerFactory, setup)
  options.preParsing = [options.preParsing ?? []].flat().concat(skipBodyParsing)
  options.onResponse = [options.onResponse ?? []].flat().concat(passFailure)
  options.handler = wrapHandler(options.handler)
  options.errorHandler = wrapRouteErrorHandler(options.errorHandler)
}

/** Called before other plugins wrap the handler, as @fastify/websocket does. */
export function noteWebSocketRoute ({ url, handler, websocket, wsHandler }: RouteOptions & { websocket?: boolean, wsHandler?: unknown }, { webSocketRoutes }: Gate): void {
  if (kPassesHandshakes in handler) webSocketRoutes.add(url, true)
  else if (websocket || wsHandler) webSocketRoutes.add(url, false)
}

function setUp (plugin: RouteSetup, { receive, send, ...routeOptions }: FastifyDuplexOptions & DeclaredItems, bodyLimit = plugin.options.bodyLimit): RouteSetup {
  const options = resolveOptions(routeOptions, { ...plugin.options, bodyLimit })
  return {
    ...plugin,
    options,
    items: receive === undefined && send === undefined ? null : new ItemFormats({ receive, send }),
    idleWatch: new IdleWatch(options.idleTimeout),
    rateWatch: rateWatchOf(options),
    warnings: new Set(),
    admitted: routeOptions.maxExchanges === undefined ? plugin.admitted : { count: 0 }
  }
}

/**
 * Wraps the logger factory of a route, to claim the connection there. Making the logger is the first thing that Fastify does
 * with a routed request, before any hook. Node's 'request' event is still on the call stack then, and the connection can only be
 * claimed during that event.
 */
function claimWithLogger (makeLogger: LoggerFactory, setup: RouteSetup): LoggerFactory {
  const { app, idleWatch, options } = setup
  return function (logger, bindings, loggerOptions, raw: IncomingMessage) {
    setExchange(raw, new RouteExchange(setup, claimRaw(raw, app, idleWatch, options)))
    return makeLogger.call(this, logger, bindings, loggerOptions, raw)
  }
}

/**
 * The last onResponse hook of the route. Fastify logs "request errored" with the error that it passes on. A client that has left is
 * logged as on an ordinary route that streams: then nothing more may be logged, and the hook does not go on. A client that
 * is killed ends its side within its body. The same if the connection was detached before a head: the status of the reply was not sent.
 */
function passFailure (request: FastifyRequest, reply: FastifyReply, done: (error: Error | null) => void): void {
  const { failure, stream, exchange } = exchangeOf(request.raw)
  if (failure instanceof AbortedError || (failure instanceof TruncatedError && exchange!.life.request === 'failed')) logPrematureClose(reply)
  else if (failure === null && stream?.detachWasCalled && exchange!.life.response === 'none') logDetached(reply)
  else done(failure)
}
