// Every fact about Fastify that its documentation does not give: where it keeps hooks and servers, what `hijack()` forgets, when
// it looks at a method or a URL. The same from Fastify 5.8.1 to 6.0.0-alpha.4.

import { EventEmitter } from 'node:events'
import type { IncomingMessage, Server } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest, onRouteHookHandler } from 'fastify'

type Listener = (...args: any[]) => void
/** Called before any hook, right after a request was routed. The last argument is Node's request. */
export type LoggerFactory = (this: FastifyInstance, logger: any, bindings: any, options: any, request: IncomingMessage) => any

/** The servers that Fastify has made beside its own, for the other addresses of `localhost`. There are none before it listens. */
export function otherServers (app: FastifyInstance): Server[] {
  return ownSymbol(app, 'fastify.serverBindings') ?? []
}

/** The hooks of the reply's route in order, those of the app first. This is the array that Fastify runs them from. */
export function hooksOf (reply: FastifyReply, name: 'preParsing' | 'onError' | 'onTimeout'): ((...args: any[]) => unknown)[] {
  return ownSymbol(reply.request, 'fastify.context')?.[name] ?? []
}

/** Adds an onRoute hook that runs before the hooks of plugins that were registered earlier. */
export function prependOnRoute (app: FastifyInstance, hook: onRouteHookHandler): void {
  app.addHook('onRoute', hook)
  const { onRoute: hooks } = ownSymbol(app, 'fastify.hooks')
  hooks.unshift(hooks.pop())
}

/**
 * As `reply.hijack()`, which makes Fastify drop its abort of `request.signal`, but keeps that abort.
 *
 * @returns a function to call when the exchange has ended well: otherwise `request.signal` would abort then
 */
export function hijack (reply: FastifyReply): () => void {
  const { raw } = reply.request
  const onAbort = keepingSignal(raw, () => { reply.hijack() })
  return onAbort === undefined ? ignore : () => { raw.removeListener('close', onAbort) }
}

/** Runs `action`, which makes Fastify take its abort of `request.signal` off the request, and puts that listener back. */
export function keepingSignal (request: IncomingMessage, action: () => void): Listener | undefined {
  const before = request.listenerCount('close') > 0 ? request.listeners('close') : []
  action()
  const after = before.length > 0 ? request.listeners('close') : []
  const gone = before.find((listener) => !after.includes(listener)) as Listener | undefined
  if (gone !== undefined) request.on('close', gone)
  return gone
}

/** Aborts `request.signal` with a reason, which Fastify's own aborts do not have. A signal that is asked for later is aborted too. */
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
 * Keeps Fastify from parsing the body of a request, whatever its content type. Right after the preParsing hooks, Fastify reads
 * `request.method` once to see whether there can be a body. For an empty method there cannot. The next read gets the true one.
 */
export function hideBody (request: FastifyRequest): void {
  Object.defineProperty(request, 'method', methodWithoutBody)
}

/** Whether `hook` is the last of the route's preParsing hooks. Fastify binds hooks. */
export function runsLast (reply: FastifyReply, hook: Function): boolean {
  return hooksOf(reply, 'preParsing').at(-1)?.name === `bound ${hook.name}`
}

// The router expects a path, and the target of CONNECT is none. find-my-way 9.10.2 refuses it before it looks at any route;
// earlier versions drop its first character. So a target is routed as a path of one segment.

const targets = new WeakMap<IncomingMessage, { target: string, path: string }>()

/** Called before a CONNECT request is routed. Only the extended CONNECT of HTTP/2 has a path (RFC 8441). */
export function makeTargetRoutable (request: IncomingMessage): void {
  const target = request.url!
  if (target.startsWith('/')) return
  request.url = `/${encodeURIComponent(target)}`
  targets.set(request, { target, path: request.url })
}

/**
 * Gives routed requests their target back. Called once, when the app is ready. Right behind its router, whatever that has
 * found, Fastify asks for the id of the request; this is where the target is restored. `rewriteUrl` and constraints run before
 * and see the path.
 */
export function restoreTargets (app: FastifyInstance): void {
  let root = app
  while (Object.getPrototypeOf(root) !== Object.prototype) root = Object.getPrototypeOf(root)
  restoreTargetsBelow(root)
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
  if (request.originalUrl === path) request.originalUrl = target // what an app's `rewriteUrl` was given
}

/** The first hook of a CONNECT route. The onRequest hooks of the app run before it, and see a slash before `params['*']`. */
export function restoreParameter ({ raw, params }: FastifyRequest, _reply: FastifyReply, done: () => void): void {
  const { target } = targets.get(raw) ?? {}
  if (target !== undefined && '*' in (params as object)) (params as Record<string, string>)['*'] = target
  done()
}

/** Whether onError hooks are running for a reply. Its `send` throws then. */
export function isInOnError (reply: FastifyReply): boolean {
  return ownSymbol(reply, 'fastify.reply.isRunningOnErrorHook') === true
}

/** Whether `send` with this payload ends the handling of an error, because no further error handler would be called. */
export function endsErrorHandling (reply: FastifyReply, payload: unknown): boolean {
  return !(payload instanceof Error) || ownSymbol(reply, 'fastify.reply.nextErrorHandler')?.func === undefined
}

/** Whether `app.inject()` has made this request, with a body. light-my-request does not announce the body of a stream. */
export function hasInjectedBody ({ _lightMyRequest: injected }: IncomingMessage & { _lightMyRequest?: { payload: unknown } }): boolean {
  return injected !== undefined && injected.payload !== null
}

/** Symbols that were found before: searching an object for them is slow. */
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

/**
 * Checks for every name used above that exists at registration. The order of Fastify's steps, and names that exist only while
 * it handles an error, cannot be checked here. The test matrix covers them.
 *
 * @returns what this Fastify lacks; null if nothing
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
  expect('hooks of an app', () => Array.isArray(ownSymbol(app, 'fastify.hooks').onRoute))
  expect('servers of an app', () => Array.isArray(findSymbol(app, 'fastify.serverBindings')))
  expect('children of an app', () => Array.isArray(ownSymbol(app, 'fastify.children')))
  expect('ids of requests', () => typeof findSymbol(app, 'fastify.genReqId') === 'function')
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

/** As `ownSymbol`, also on what the object inherits from: the instance of a plugin inherits from its parent's. */
function findSymbol (object: object, description: string): any {
  for (let one = object; one !== null; one = Object.getPrototypeOf(one)) {
    const found = ownSymbol(one, description)
    if (found !== undefined) return found
  }
}

function ignore (): void {}
