// What this plugin must know of the insides of Fastify: where it keeps hooks and servers, what `hijack()` forgets, when it
// looks at a method or a URL. `missingFromFastify` tries all of it; the same from Fastify 5.8.1 to 6.0.0-alpha.4.

import type { IncomingMessage, Server } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions, onRouteHookHandler } from 'fastify'

type Listener = (...args: any[]) => void
type Done = (error: Error | null, payload?: unknown) => void
/** Called as the first thing for a request that has been routed, with Node's request at the end, before any hook. */
export type LoggerFactory = (this: FastifyInstance, logger: any, bindings: any, options: any, request: IncomingMessage) => any

/**
 * The servers Fastify made beside its own, for the other addresses of `localhost`; there are none before it listens.
 */
export function otherServers (app: FastifyInstance): Server[] {
  return ownSymbol(app, 'fastify.serverBindings') ?? []
}

/** The hooks of the reply's route, in order, the app's own before; the very array Fastify runs them from. */
export function hooksOf (reply: FastifyReply, name: 'preParsing' | 'onError' | 'onTimeout'): ((...args: any[]) => unknown)[] {
  return ownSymbol(reply.request, 'fastify.context')?.[name] ?? []
}

/** Adds an onRoute hook that runs before those of plugins that were registered earlier. */
export function prependOnRoute (app: FastifyInstance, hook: onRouteHookHandler): void {
  app.addHook('onRoute', hook)
  const { onRoute: hooks } = ownSymbol(app, 'fastify.hooks')
  hooks.unshift(hooks.pop())
}

/**
 * `reply.hijack()`, but for the abort of `request.signal`, which Fastify drops for a reply that leaves its care. This
 * one does not.
 *
 * @returns what to call when the exchange has ended well; without it `request.signal` would abort then
 */
export function hijack (reply: FastifyReply): () => void {
  const { raw } = reply.request
  const onAbort = keepingCloseListeners(raw, () => { reply.hijack() })
  return onAbort === undefined ? ignore : () => { raw.removeListener('close', onAbort) }
}

/** Does something that makes Fastify take its abort of `request.signal` off the request, and puts it back. */
export function keepingCloseListeners (request: IncomingMessage, action: () => void): Listener | undefined {
  const before = request.listenerCount('close') > 0 ? request.listeners('close') : []
  action()
  const after = before.length > 0 ? request.listeners('close') : []
  const gone = before.find((listener) => !after.includes(listener)) as Listener | undefined
  if (gone !== undefined) request.on('close', gone)
  return gone
}

/**
 * Aborts `request.signal` with a reason: Fastify's own aborts have none. Who asks for the signal later gets it aborted.
 */
export function abortSignal (request: FastifyRequest, reason: Error): void {
  if (!request.signal.aborted) ownSymbol(request, 'fastify.request.signal')?.abort(reason)
}

const methodWithoutBody: PropertyDescriptor & ThisType<{ method?: string }> = {
  configurable: true,
  get () {
    delete this.method
    return ''
  }
}

/**
 * Keeps Fastify from parsing the body of a request, of any type. It looks at `request.method` once, right after the
 * preParsing hooks, to see whether there is a body. The empty method has none. It is gone before anybody else can look.
 */
export function hideBody (request: FastifyRequest): void {
  Object.defineProperty(request, 'method', methodWithoutBody)
}

/** Whether `hook`, one of its route's preParsing hooks, runs behind all others. Fastify binds hooks. */
export function runsLast (reply: FastifyReply, hook: Function): boolean {
  return hooksOf(reply, 'preParsing').at(-1)?.name === `bound ${hook.name}`
}

// The router takes paths, and the target of CONNECT is none: find-my-way 9.10.2 refuses it before any route is asked; before
// it took off the first character. So a target is routed as the one segment of a path. What routes look at then is restored.

const targets = new WeakMap<IncomingMessage, string>()

/** Before a CONNECT request is routed. Only the extended CONNECT of HTTP/2 has a path (RFC 8441). */
export function makeTargetRoutable (request: IncomingMessage): void {
  const target = request.url!
  if (target.startsWith('/')) return
  targets.set(request, target)
  request.url = `/${encodeURIComponent(target)}`
}

function restoreTarget (request: IncomingMessage & { originalUrl?: string }): void {
  const target = targets.get(request)
  if (target === undefined) return
  request.url = target
  if (request.originalUrl !== undefined) request.originalUrl = target // what an app's `rewriteUrl` was given
}

function restoringTarget (makeLogger: LoggerFactory): LoggerFactory {
  return function (logger, bindings, options, request) {
    restoreTarget(request)
    return makeLogger.call(this, logger, bindings, options, request)
  }
}

/** What a route of CONNECT needs, duplex or not. An onRequest hook of the app still sees a slash before `params['*']`. */
export function restoreTargetOf (route: RouteOptions, app: FastifyInstance): void {
  const own = route as RouteOptions & Record<'childLoggerFactory' | 'onRequest', any>
  own.childLoggerFactory = restoringTarget(own.childLoggerFactory ?? app.childLoggerFactory)
  own.onRequest = [restoreParameter].concat(own.onRequest ?? [])
}

function restoreParameter ({ raw, params }: FastifyRequest, _reply: FastifyReply, done: () => void): void {
  if (targets.has(raw)) (params as Record<string, string>)['*'] = raw.url!
  done()
}

/** The same for requests that match no route. Once all not-found handlers are set. */
export function restoreTargetsNotFound (app: FastifyInstance): void {
  for (let instance = app; instance !== null; instance = Object.getPrototypeOf(instance)) {
    const context = ownSymbol(instance, 'fastify.404ContextKey')
    if (context) context.childLoggerFactory = restoringTarget(context.childLoggerFactory)
  }
}

/** Whether onError hooks run for a reply: Fastify throws from its `send` then. */
export function isInOnError (reply: FastifyReply): boolean {
  return ownSymbol(reply, 'fastify.reply.isRunningOnErrorHook') === true
}

/** Whether `send` with this payload ends the handling of an error: no further error handler would be asked. */
export function endsErrorHandling (reply: FastifyReply, payload: unknown): boolean {
  return !(payload instanceof Error) || ownSymbol(reply, 'fastify.reply.nextErrorHandler')?.func === undefined
}

/** Symbols found before: looking through all those of an object takes long. */
const known = new Map<string, symbol>()

function ownSymbol (object: object, description: string): any {
  let symbol = known.get(description)
  if (symbol === undefined || !Object.hasOwn(object, symbol)) {
    symbol = Object.getOwnPropertySymbols(object).find((one) => one.description === description)
    if (symbol === undefined) return undefined
    known.set(description, symbol)
  }
  return (object as Record<symbol, unknown>)[symbol]
}

interface Tried { version: string, missing: string[] }

const tried = new Map<() => FastifyInstance, Promise<Tried>>()

/**
 * Tries all of the above once, on an app of its own.
 *
 * @param app whose Fastify it is about
 * @param makeApp what makes another one; the Fastify that this package finds beside it may be another copy, and is then not tried
 * @returns what this Fastify lacks; null if nothing
 */
export async function missingFromFastify (app: FastifyInstance, makeApp = require('fastify') as () => FastifyInstance): Promise<string | null> {
  let trial = tried.get(makeApp)
  if (trial === undefined) tried.set(makeApp, trial = tryFacts(makeApp()))
  const { version, missing } = await trial
  return version !== app.version || missing.length === 0 ? null : missing.join(', ')
}

async function tryFacts (app: FastifyInstance): Promise<Tried> {
  const missing: string[] = []
  const expect = (fact: string, isTrue: boolean): void => { if (!isTrue) missing.push(fact) }
  let routed: IncomingMessage | null = null
  const preParsing = (request: FastifyRequest, reply: FastifyReply, payload: unknown, done: Done): void => {
    expect('hooks of a route', runsLast(reply, preParsing))
    hideBody(request)
    done(null, payload)
  }
  app.setErrorHandler((error, request, reply) => {
    expect('next error handler', !endsErrorHandling(reply, error))
    reply.send((error as Error).message)
  })
  app.route({
    method: 'POST',
    url: '/',
    childLoggerFactory: (logger: unknown, bindings: unknown, options: unknown, request: IncomingMessage) => { routed = request; return logger },
    onRequest: async (request: FastifyRequest) => { expect('logger of a route before its hooks', routed === request.raw) },
    preParsing,
    handler: async (request: FastifyRequest, reply: FastifyReply) => {
      expect('onError hooks that are running', ownSymbol(reply, 'fastify.reply.isRunningOnErrorHook') === false)
      const { signal } = request
      abortSignal(request, new Error())
      expect('signal of a request', signal.aborted)
      throw new Error('handled')
    }
  } as unknown as RouteOptions)
  await app.ready()
  expect('hooks of an app', ownSymbol(app, 'fastify.hooks')?.onRoute?.length === 0)
  expect('servers of an app', ownSymbol(app, 'fastify.serverBindings') !== undefined)
  expect('not-found handler', typeof ownSymbol(app, 'fastify.404ContextKey')?.childLoggerFactory === 'function')
  const { payload } = await app.inject({ method: 'POST', url: '/', headers: { 'content-type': 'of/no-parser' }, payload: '.' })
  expect('method that has no body', payload === 'handled')
  return { version: app.version, missing }
}

function ignore (): void {}
