// What `duplex: true` does to a route. The route keeps its place in Fastify's life cycle: every hook runs, with the true method
// and headers. Only the body is left unparsed, and the handler gets `reply.duplex`.

import type { IncomingMessage } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import type { DuplexOptions } from '../../types/index.d.ts'
import { BodySchemaError } from '../errors.ts'
import { resolveOptions } from '../options.ts'
import { IdleWatch } from '../transport/idle-watch.ts'
import { claimRaw } from '../transport/raw.ts'
import { skipBodyParsing } from './admission.ts'
import { runHandler } from './handler.ts'
import { type LoggerFactory, restoreParameter } from './internals.ts'
import { RouteExchange, type RouteSetup, exchangeOf, setExchange } from './route-exchange.ts'

/** The onRoute hook. */
export function makeDuplex (this: FastifyInstance, route: RouteOptions, plugin: RouteSetup): void {
  const { duplex } = route as { duplex?: boolean | DuplexOptions }
  const isConnect = [route.method].flat().includes('CONNECT')
  if (isConnect) (route as { onRequest?: unknown }).onRequest = [restoreParameter, route.onRequest ?? []].flat()
  if (!duplex) return
  if ((route.schema as { body?: unknown } | undefined)?.body !== undefined) {
    throw new BodySchemaError(String(route.method), route.url)
  }
  if (isConnect) plugin.gate.routesConnect = true
  const setup = setUp(plugin, duplex === true ? {} : duplex, route.bodyLimit)
  const options = route as RouteOptions & Record<'childLoggerFactory' | 'preParsing' | 'onResponse', any>
  options.childLoggerFactory = claimWithLogger(options.childLoggerFactory ?? this.childLoggerFactory, setup)
  options.preParsing = [options.preParsing ?? []].flat().concat(skipBodyParsing)
  options.onResponse = [options.onResponse ?? []].flat().concat(passFailure)
  options.handler = runHandler(options.handler)
}

function setUp (plugin: RouteSetup, routeOptions: DuplexOptions, bodyLimit = plugin.options.bodyLimit): RouteSetup {
  const options = resolveOptions(routeOptions, { ...plugin.options, bodyLimit })
  return {
    ...plugin,
    options,
    idleWatch: new IdleWatch(options.idleTimeout),
    admitted: routeOptions.maxExchanges === undefined ? plugin.admitted : { count: 0 }
  }
}

/**
 * The first thing Fastify does with a request it has routed is to make its logger. That is the only place on a route that
 * comes before any hook, while Node's 'request' event is on the call stack and the connection can still be claimed.
 */
function claimWithLogger (makeLogger: LoggerFactory, setup: RouteSetup): LoggerFactory {
  const { app, idleWatch, options } = setup
  return function (logger, bindings, loggerOptions, raw: IncomingMessage) {
    setExchange(raw, new RouteExchange(setup, claimRaw(raw, app, idleWatch, options)))
    return makeLogger.call(this, logger, bindings, loggerOptions, raw)
  }
}

/** Makes Fastify log why an exchange has failed: "request errored" takes the error of the last onResponse hook. */
function passFailure (request: FastifyRequest, _reply: FastifyReply, done: (error: Error | null) => void): void {
  done(exchangeOf(request.raw).failure)
}
