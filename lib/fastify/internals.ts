// Every fact about Fastify that its documentation does not give: where it keeps hooks and servers, what `hijack()` does to
// `request.signal`, when it reads the method and the URL. The same from Fastify 5.8.1 to 6.0.0-alpha.4.
//
// One file, so that a new version of Fastify can break nothing else.

import { subscribe } from 'node:diagnostics_channel'
import { EventEmitter } from 'node:events'
import type { IncomingMessage, Server } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions, onRouteHookHandler } from 'fastify'
import type { OutgoingFields } from '../../types/transfer.d.ts'
import type { SchemaErrorFormatter } from 'fastify/types/schema'

type Listener = (...args: any[]) => void
/** Called before any hook, right after a request was routed. The last argument is Node's request. */
export type LoggerFactory = (this: FastifyInstance, logger: any, bindings: any, options: any, request: IncomingMessage) => any

/** Calls back for each app that is created from now on, when it has no routes yet. Fastify documents this, under "Hooks". */
export function onNewApp (callback: (app: FastifyInstance) => void): void {
  subscribe('fastify.initialization', (message) => { callback((message as { fastify: FastifyInstance }).fastify) })
}

/** The servers that Fastify has made besides `app.server`, for the other addresses of `localhost`. Empty before it listens. */
export function otherServers (app: FastifyInstance): Server[] {
  return findSymbol(app, 'fastify.serverBindings') ?? []
}

/** The hooks of the reply's route in order, those of the app first. This is the array that Fastify itself uses: it can be changed. */
export function hooksOf (reply: FastifyReply, name: 'preParsing' | 'onError' | 'onSend' | 'onTimeout'): ((...args: any[]) => unknown)[] {
  return ownSymbol(reply.request, 'fastify.context')?.[name] ?? []
}

/**
 * As `reply.getHeaders()`, which copies the fields twice, where nothing was set on Node's response: then the reply's own object, which
 * must not be changed.
 */
export function headersOf (reply: FastifyReply): OutgoingFields {
  const own = reply.raw.getHeaderNames().length === 0 ? ownSymbol(reply, 'fastify.reply.headers') : undefined
  return own ?? reply.getHeaders()
}

/** Adds an onRoute hook that runs before the hooks of plugins that were registered earlier. */
export function prependOnRoute (app: FastifyInstance, hook: onRouteHookHandler): void {
  app.addHook('onRoute', hook)
  const { onRoute: hooks } = ownSymbol(app, 'fastify.hooks')
  hooks.unshift(hooks.pop())
}

/**
 * Adds a preClose hook that runs before all others of the whole app, and one that runs behind them. Called when the app is ready.
 * Fastify runs these hooks one after the other: those of an instance, then those of its children. It closes the server behind
 * the last one.
 */
export function surroundPreClose (app: FastifyInstance, first: () => void, last: () => Promise<void>): void {
  const root = rootOf(app)
  let lastInstance = root
  for (let child: FastifyInstance | undefined = root; child !== undefined; child = ownSymbol(child, 'fastify.children').at(-1)) lastInstance = child
  ownSymbol(root, 'fastify.hooks').preClose.unshift(first)
  ownSymbol(lastInstance, 'fastify.hooks').preClose.push(last)
}

/**
 * As `reply.hijack()`, but `request.signal` still aborts when the request closes. `reply.hijack()` alone removes Fastify's
 * listener for that.
 *
 * @returns a function to call when the exchange has ended well: it removes that listener, so that the signal does not abort
 */
export function hijack (reply: FastifyReply): () => void {
  const { raw } = reply.request
  const onAbort = keepSignalDuring(raw, () => { reply.hijack() })
  return onAbort === undefined ? ignore : () => { raw.removeListener('close', onAbort) }
}

/**
 * Runs `action`, during which Fastify removes its listener that aborts `request.signal` when the request closes. Puts that
 * listener back.
 *
 * @returns the listener; undefined if none was removed
 */
export function keepSignalDuring (request: IncomingMessage, action: () => void): Listener | undefined {
  const before = request.listenerCount('close') > 0 ? request.listeners('close') : []
  action()
  const after = before.length > 0 ? request.listeners('close') : []
  const gone = before.find((listener) => !after.includes(listener)) as Listener | undefined
  if (gone !== undefined) request.on('close', gone)
  return gone
}

/**
 * Aborts `request.signal` with a reason. (Fastify itself aborts it without one.) If the signal is first used later, it is
 * aborted by then.
 */
export function abortSignal (request: FastifyRequest, reason: Error): void {
  if (!request.signal.aborted) ownSymbol(request, 'fastify.request.signal')?.abort(reason)
}

/** Logs as Fastify does when the client leaves during an answer that is a stream, unless logging is disabled for the request. */
export function logPrematureClose (reply: FastifyReply): void {
  const controller = findSymbol(reply.server, 'fastify.logController')
  if (controller !== undefined) controller.streamError({ code: 'ERR_STREAM_PREMATURE_CLOSE' }, reply.request, reply)
  // Before log controllers, loggers had this flag.
  else if (findSymbol(reply.log, 'fastify.disableRequestLogging') !== true) reply.log.info({ res: reply }, 'stream closed prematurely')
}

/** Logs that the user has the connection, with no status: unless logging is disabled for the request. */
export function logDetached (reply: FastifyReply): void {
  const isDisabled = findSymbol(reply.server, 'fastify.logController')?.isLogDisabled(reply.request) ?? findSymbol(reply.log, 'fastify.disableRequestLogging')
  if (isDisabled !== true) reply.log.info({ responseTime: reply.elapsedTime }, 'connection detached')
}

/** Whether `reply.trailer()` was called. */
export function hasTrailers (reply: FastifyReply): boolean {
  const trailers = ownSymbol(reply, 'fastify.reply.trailers')
  return trailers !== null && trailers !== undefined
}

/** The request whose method the next reader does not see. */
let withoutMethod: object | null = null

const prepared = new WeakSet<object>()

/** Prepares the requests of a whole app for `withoutBody`: `request.method` costs ordinary requests one comparison more. */
export function prepareRequests (app: FastifyInstance): void {
  const { prototype } = findSymbol(rootOf(app), 'fastify.Request')
  if (prepared.has(prototype)) return
  prepared.add(prototype)
  const { get: methodOf } = methodDescriptor(prototype)!
  Object.defineProperty(prototype, 'method', {
    configurable: true,
    get (this: object) {
      if (withoutMethod !== this) return methodOf!.call(this)
      withoutMethod = null
      return ''
    }
  })
}

/** The getter of `method` in the prototypes of a request. */
function methodDescriptor (prototype: object | null): PropertyDescriptor | undefined {
  if (prototype === null) return undefined
  return Object.getOwnPropertyDescriptor(prototype, 'method') ?? methodDescriptor(Object.getPrototypeOf(prototype))
}

/**
 * Keeps Fastify from parsing the body of a request, whatever its content type. `proceed` calls back the last preParsing hook.
 * The first thing that Fastify does then is to read `request.method`, to see whether there can be a body. This first read gets an
 * empty string, for which there cannot be one. All others get the true method.
 */
export function withoutBody (request: FastifyRequest, proceed: () => void): void {
  withoutMethod = request
  proceed()
  withoutMethod = null
}

/** Whether `hook` is the last of the route's preParsing hooks. They are compared by name, since Fastify binds hooks. */
export function runsLast (reply: FastifyReply, hook: Function): boolean {
  return hooksOf(reply, 'preParsing').at(-1)?.name === `bound ${hook.name}`
}

// The router expects a path, but the target of CONNECT is a host and a port. find-my-way 9.10.2 refuses it before it looks at any
// route. Earlier versions drop its first character. So the target is routed as a path of one segment.

const targets = new WeakMap<IncomingMessage, { target: string, path: string }>()

/**
 * Called before a CONNECT request is routed. A path is routed as it is: it is the target of an extended CONNECT of HTTP/2 (RFC
 * 8441), or one that the route refuses.
 */
export function makeTargetRoutable (request: IncomingMessage): void {
  const target = request.url!
  if (target.startsWith('/')) return
  request.url = `/${encodeURIComponent(target)}`
  targets.set(request, { target, path: request.url })
}

const restored = new WeakSet<FastifyInstance>()

/**
 * Makes an app restore the targets of CONNECT requests after they were routed. Called when the app is ready, and done once for
 * a whole app. Right after routing, Fastify generates the id of the request, whether a route was found or not. That is where the
 * target is restored. `rewriteUrl` and constraints run earlier, and see the path.
 */
export function restoreTargets (app: FastifyInstance): void {
  const root = rootOf(app)
  if (restored.has(root)) return
  restored.add(root)
  restoreTargetsBelow(root)
}

/** The whole app, of which `app` may be a child: the instance of a plugin inherits from its parent's. */
export function rootOf (app: FastifyInstance): FastifyInstance {
  let root = app
  // Not up to `Object.prototype`: the app may come from another realm, as in a test runner that uses node:vm.
  while (Object.getPrototypeOf(Object.getPrototypeOf(root)) !== null) root = Object.getPrototypeOf(root)
  return root
}

function restoreTargetsBelow (instance: FastifyInstance): void {
  const generate = ownSymbol(instance, 'fastify.genReqId')
  if (generate !== undefined) {
    Object.assign(instance, {
      [known.get('fastify.genReqId')!]: (request: IncomingMessage) => {
        if (request.method === 'CONNECT') restoreTarget(request)
        return generate(request)
      }
    })
  }
  for (const child of ownSymbol(instance, 'fastify.children')) restoreTargetsBelow(child)
}

function restoreTarget (request: IncomingMessage & { originalUrl?: string }): void {
  const { target, path } = targets.get(request) ?? {}
  if (target === undefined) return
  if (request.url === path) request.url = target
  if (request.originalUrl === path) request.originalUrl = target // set if the app has a `rewriteUrl`
}

/**
 * Restores `params['*']` of a CONNECT request: the first onRequest hook of a CONNECT route. The onRequest hooks of the app run
 * earlier, and see the path there.
 */
export function restoreParameter ({ raw, params }: FastifyRequest, _reply: FastifyReply, done: () => void): void {
  const { target } = targets.get(raw) ?? {}
  if (target !== undefined && '*' in (params as object)) (params as Record<string, string>)['*'] = target
  done()
}

/** Whether onError hooks are running for a reply. Its `send` throws during that time. */
export function isInOnError (reply: FastifyReply): boolean {
  return ownSymbol(reply, 'fastify.reply.isRunningOnErrorHook') === true
}

/** Whether `send` with this payload is the last step of error handling: no further error handler would be called. */
export function endsErrorHandling (reply: FastifyReply, payload: unknown): boolean {
  return !(payload instanceof Error) || ownSymbol(reply, 'fastify.reply.nextErrorHandler')?.func === undefined
}

export type ErrorHandler = (this: unknown, error: Error, request: FastifyRequest, reply: FastifyReply) => unknown

/** The error handlers of a scope: its own, and as its prototype those of its parent. Fastify's default handler is the last. */
interface ErrorHandlers { func?: ErrorHandler }

const wrappedHandlers = new WeakMap<ErrorHandlers, ErrorHandlers>()

/**
 * Called within an error handler: wraps those that Fastify would call if this one fails, except its default handler.
 *
 * @param wrap always the same function
 */
export function wrapNextErrorHandlers (reply: FastifyReply, wrap: (handler: ErrorHandler) => ErrorHandler): void {
  setNextErrorHandlers(reply, wrapAll(nextErrorHandlers(reply), wrap))
}

function wrapAll (handlers: ErrorHandlers, wrap: (handler: ErrorHandler) => ErrorHandler): ErrorHandlers {
  const parent: ErrorHandlers = Object.getPrototypeOf(handlers)
  if (parent.func === undefined) return handlers
  let wrapped = wrappedHandlers.get(handlers)
  if (wrapped === undefined) {
    wrapped = Object.assign(Object.create(wrapAll(parent, wrap)), { func: wrap(handlers.func!) }) as ErrorHandlers
    wrappedHandlers.set(handlers, wrapped).set(wrapped, wrapped)
  }
  return wrapped
}

/** Called within an error handler: the one that Fastify would call if this one fails. Fastify then calls the one after it. */
export function takeNextErrorHandler (reply: FastifyReply): ErrorHandler {
  const handlers = nextErrorHandlers(reply)
  setNextErrorHandlers(reply, Object.getPrototypeOf(handlers))
  return handlers.func!
}

function nextErrorHandlers (reply: FastifyReply): ErrorHandlers {
  return ownSymbol(reply, 'fastify.reply.nextErrorHandler')
}

function setNextErrorHandlers (reply: FastifyReply, handlers: ErrorHandlers): void {
  (reply as unknown as Record<symbol, ErrorHandlers>)[known.get('fastify.reply.nextErrorHandler')!] = handlers
}

export type Validate = ((value: unknown) => unknown) & { errors?: unknown }
export type Serialize = (value: unknown) => unknown

/** Compiles schemas as Fastify compiles those of a route. */
export interface SchemaCompilers {
  validator: (schema: unknown) => Validate
  serializer: (schema: unknown, contentType: string) => Serialize
}

/** The compilers of a route or of its instance. They know the shared schemas of the instance. Called when the app is ready. */
export function compilersOf (app: FastifyInstance, route: RouteOptions): SchemaCompilers {
  const controller = findSymbol(app, 'fastify.schemaController')
  const options = findSymbol(app, 'fastify.options')
  const { method, url } = route
  return {
    validator (schema) {
      if (route.validatorCompiler === undefined) controller.setupValidator(options)
      return (route.validatorCompiler ?? controller.validatorCompiler)({ schema: plain(schema), method, url, httpPart: 'body' })
    },
    serializer (schema, contentType) {
      if (route.serializerCompiler === undefined) controller.setupSerializer(options)
      return (route.serializerCompiler ?? controller.serializerCompiler)({ schema: plain(schema), method, url, httpStatus: '200', contentType })
    }
  }
}

/** A schema of fluent-json-schema as JSON Schema. */
function plain (schema: any): unknown {
  return schema?.isFluentSchema || schema?.isFluentJSONSchema ? schema.valueOf() : schema
}

/** Makes the error of items that do not fit their schema: what is set with `setSchemaErrorFormatter`; undefined by default. */
export function schemaErrorFormatterOf (app: FastifyInstance, route: RouteOptions): SchemaErrorFormatter | undefined {
  return route.schemaErrorFormatter ?? findSymbol(app, 'fastify.schemaErrorFormatter') ?? undefined
}

/**
 * Parses JSON by the app's rules for keys such as `__proto__`, as Fastify does for bodies that are JSON.
 *
 * @returns null if the app has no such rules
 */
export function jsonParserOf (app: FastifyInstance): ((text: string) => unknown) | null {
  const { onProtoPoisoning = 'error', onConstructorPoisoning = 'error' } = app.initialConfig
  if (onProtoPoisoning === 'ignore' && onConstructorPoisoning === 'ignore') return null
  const parser = app.getDefaultJsonParser(onProtoPoisoning, onConstructorPoisoning) as (request: unknown, body: string, done: (error: Error | null, value: unknown) => void) => void
  return (text) => {
    JSON.parse(text) // its error says what is wrong
    let result: unknown
    parser(null, text, (error, value) => {
      if (error !== null) throw new SyntaxError('an object has the key "__proto__", or "constructor" with "prototype"', { cause: error })
      result = value
    })
    return result
  }
}

/** Whether `app.inject()` has made this request, with a body. A payload that is a stream is not announced in the head. */
export function hasInjectedBody ({ _lightMyRequest: injected }: IncomingMessage & { _lightMyRequest?: { payload: unknown } }): boolean {
  return injected !== undefined && injected.payload !== null
}

/** Symbols that were found before, by description. Searching an object for them is slow. */
const known = new Map<string, symbol>()

/** The value of an object's own property whose key is the symbol of this description; undefined if there is none. */
function ownSymbol (object: object, description: string): any {
  let symbol = known.get(description)
  if (symbol === undefined || !Object.hasOwn(object, symbol)) {
    symbol = Object.getOwnPropertySymbols(object).find((one) => one.description === description)
    if (symbol === undefined) return undefined
    known.set(description, symbol)
  }
  return (object as Record<symbol, unknown>)[symbol]
}

/**
 * Checks that Fastify has the names that this file uses, as far as they exist at registration. It cannot check the order of
 * Fastify's steps, or names that exist only during error handling. The test matrix covers those.
 *
 * @returns what this Fastify lacks, in words for an error message; null if nothing
 */
export function missingFromFastify (app: FastifyInstance): string | null {
  const missing: string[] = []
  const expect = (name: string, isThere: () => boolean): void => {
    try {
      if (!isThere()) missing.push(name)
    } catch {
      missing.push(name)
    }
  }
  const raw = new EventEmitter()
  expect('hooks of an app', () => ['onRoute', 'preClose'].every((name) => Array.isArray(ownSymbol(app, 'fastify.hooks')[name])))
  expect('servers of an app', () => Array.isArray(findSymbol(app, 'fastify.serverBindings')))
  expect('compilers of an app', () => ['setupValidator', 'setupSerializer'].every((name) => typeof findSymbol(app, 'fastify.schemaController')[name] === 'function') && findSymbol(app, 'fastify.options') !== undefined)
  expect('children of an app', () => Array.isArray(ownSymbol(app, 'fastify.children')))
  expect('ids of requests', () => typeof findSymbol(app, 'fastify.genReqId') === 'function')
  expect('method of a request', () => methodDescriptor(findSymbol(app, 'fastify.Request').prototype)?.get !== undefined)
  expect('context of a request', () => {
    const request = new (findSymbol(app, 'fastify.Request'))('', {}, raw, {}, app.log, { preParsing: [] })
    return hooksOf({ request } as FastifyReply, 'preParsing').length === 0 && ownSymbol(request, 'fastify.context') !== undefined
  })
  expect('signal of a request', () => {
    const request = new (findSymbol(app, 'fastify.Request'))('', {}, raw, {}, app.log, {})
    const { signal } = request
    abortSignal(request, new Error())
    return signal.aborted
  })
  return missing.length === 0 ? null : missing.join(', ')
}

/** As `ownSymbol`, but also for inherited properties: the instance of a plugin inherits from that of its parent. */
function findSymbol (object: object, description: string): any {
  for (let one = object; one !== null; one = Object.getPrototypeOf(one)) {
    const found = ownSymbol(one, description)
    if (found !== undefined) return found
  }
}

function ignore (): void {}
