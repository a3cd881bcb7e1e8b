// What `duplex: true` does to one route. It keeps its place in Fastify's life cycle: every hook runs, with the true
// method and headers. Only the body is left alone, and the handler gets `reply.duplex`.

import { type Duplex, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { IncomingMessage } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import type { DuplexOptions } from '../types/index.d.ts'
import type { Carrier } from './carrier/carrier.ts'
import { IdleWatch } from './carrier/idle-watch.ts'
import { MessageCarrier } from './carrier/message.ts'
import { claimSocket } from './carrier/socket.ts'
import { AbortedError, BodyLimitError, BodySchemaError, HeadSentError, NotEnabledError, TooManyExchangesError } from './errors.ts'
import { HttpDuplex, type Owner } from './exchange/http-duplex.ts'
import type { Registry } from './exchange/registry.ts'
import { type LoggerFactory, endsErrorHandling, hideBody, hooksOf, isInOnError, restoreParameter, runsLast } from './fastify-internals.ts'
import type { Gate } from './handoff.ts'
import { type ResolvedOptions, resolveOptions } from './options.ts'
import { type Authority, parseAuthority } from './transfer/tunnel.ts'

/** Seconds after which a refused client may try again. */
const RETRY_AFTER = 1

type Done = (error?: Error | null) => void
type Hook = (request: FastifyRequest, reply: FastifyReply, ...rest: any[]) => unknown

/** What duplex routes are made of: the plugin's, or with options of its own, the route's. */
export interface RouteSetup {
  options: ResolvedOptions
  registry: Registry
  idleWatch: IdleWatch
  /** Exchanges open now, of those that share one `maxExchanges`. */
  admitted: { count: number }
  gate: Gate
}

/** What a request on a duplex route carries with it, from routing on. */
class Exchange implements Owner {
  readonly setup: RouteSetup
  /** Null until it is needed, where the connection could not be claimed. */
  carrier: Carrier | null
  stream: HttpDuplex | null = null
  /** The handler has returned, and no promise: a failure has nobody to tell but us. */
  unattended = false
  /** `skipBodyParsing` was called, with others behind it. */
  passed = false
  /** Where a CONNECT request wants to go. */
  authority: Authority | null = null
  /** What `reply.send` was before. */
  send: FastifyReply['send'] | null = null
  /** We have answered why the exchange failed: a handler that answers later comes too late. */
  answersFailure = false
  /** And an error handler has given its answer. */
  failureAnswered = false
  private reply!: FastifyReply

  constructor (setup: RouteSetup, carrier: Carrier | null) {
    this.setup = setup
    this.carrier = carrier
  }

  open (reply: FastifyReply): HttpDuplex {
    this.reply = reply
    this.stream = new HttpDuplex(carrierOf(this, reply), reply, this, this.setup.registry, this.setup.options)
    return this.stream
  }

  onStreamError (): void {
    if (this.stream!.failure === null) answerFailure(this, this.reply)
  }

  /** Before the exchange ends: onError comes before onResponse, up to the first hook that takes its time. */
  onCutOff (error: Error): void {
    if (!(error instanceof AbortedError)) runHooks(hooksOf(this.reply, 'onError'), this.reply.request, this.reply, error)
  }
}

const kExchange = Symbol('fastify-duplex.exchange')

type DuplexRequest = IncomingMessage & { [kExchange]?: Exchange }

/** The getter of `reply.duplex`. */
export function getDuplex (this: FastifyReply): HttpDuplex {
  const exchange = (this.request.raw as DuplexRequest)[kExchange]
  if (exchange === undefined) throw new NotEnabledError(this.request.method, this.request.url)
  return exchange.stream ?? exchange.open(this)
}

/** The getter of `request.authority`. */
export function getAuthority (this: FastifyRequest): Authority | null {
  const exchange = (this.raw as DuplexRequest)[kExchange]
  // Hooks that run before it is checked may ask, and must not take the wrong answer for none.
  return exchange === undefined ? null : authorityOf(exchange, this.raw)
}

/** @throws {AuthorityError} FST_ERR_DUPLEX_AUTHORITY (400) */
function authorityOf (exchange: Exchange, { method, url }: IncomingMessage): Authority | null {
  // The extended CONNECT of HTTP/2 has a path (RFC 8441).
  if (method === 'CONNECT' && !url!.startsWith('/')) exchange.authority ??= parseAuthority(url!)
  return exchange.authority
}

function carrierOf (exchange: Exchange, reply: FastifyReply): Carrier {
  const { idleWatch, options } = exchange.setup
  exchange.carrier ??= new MessageCarrier(reply.request.raw, reply.raw, idleWatch, options)
  return exchange.carrier
}

/** The onRoute hook. */
export function makeDuplex (this: FastifyInstance, route: RouteOptions, plugin: RouteSetup): void {
  const { duplex } = route as { duplex?: boolean | DuplexOptions }
  const isConnect = [route.method].flat().includes('CONNECT')
  if (isConnect) (route as { onRequest?: unknown }).onRequest = [restoreParameter, route.onRequest ?? []].flat()
  if (!duplex) return
  if ((route.schema as { body?: unknown } | undefined)?.body !== undefined) {
    throw new BodySchemaError(String(route.method), route.url)
  }
  if (isConnect) plugin.gate.connect = true
  const setup = setUp(plugin, duplex === true ? {} : duplex, route.bodyLimit)
  const own = route as RouteOptions & Record<'childLoggerFactory' | 'preParsing' | 'onResponse', any>
  own.childLoggerFactory = claimWithLogger(own.childLoggerFactory ?? this.childLoggerFactory, setup)
  own.preParsing = [own.preParsing ?? []].flat().concat(skipBodyParsing)
  own.onResponse = [own.onResponse ?? []].flat().concat(passFailure)
  own.handler = runHandler(own.handler)
}

function setUp ({ options: defaults, registry, admitted, gate }: RouteSetup, own: DuplexOptions, bodyLimit = defaults.bodyLimit): RouteSetup {
  const options = resolveOptions(own, { ...defaults, bodyLimit })
  return {
    options,
    registry,
    idleWatch: new IdleWatch(options.idleTimeout),
    gate,
    admitted: own.maxExchanges === undefined ? admitted : { count: 0 }
  }
}

/**
 * The first thing Fastify does for a request that it has routed is to make its logger: the one place on a route that
 * comes before any hook, while Node's 'request' event is on the call stack and the connection can still be claimed.
 */
function claimWithLogger (makeLogger: LoggerFactory, setup: RouteSetup): LoggerFactory {
  const { registry, idleWatch, options } = setup
  return function (logger, bindings, loggerOptions, raw: DuplexRequest) {
    raw[kExchange] = new Exchange(setup, claimSocket(raw, registry, idleWatch, options))
    return makeLogger.call(this, logger, bindings, loggerOptions, raw)
  }
}

function skipBodyParsing (request: FastifyRequest, reply: FastifyReply, payload: unknown, done: (error: Error | null, payload?: unknown) => void): void {
  const exchange = (request.raw as DuplexRequest)[kExchange]!
  if (!exchange.passed && !isLast(reply)) {
    exchange.passed = true
    done(null, payload)
    return
  }
  const error = refuse(exchange, reply)
  // With no asynchronous hook before, Node's parser is still on the call stack, and its connection not taken yet.
  process.nextTick(() => {
    if (error === null) hideBody(request)
    done(error, payload)
  })
}

/** The preParsing hooks of routes, and whether `skipBodyParsing` was the last of them when first seen. */
const orders = new WeakMap<object, boolean>()

/** A plugin that was registered later may have added a hook behind ours, which then has to run once more, behind that. */
function isLast (reply: FastifyReply): boolean {
  const hooks = hooksOf(reply, 'preParsing')
  let last = orders.get(hooks)
  if (last === undefined) {
    last = hooks.length === 0 || runsLast(reply, skipBodyParsing)
    if (!last) hooks.push(skipBodyParsing)
    orders.set(hooks, last)
  }
  return last
}

/** What keeps a request from its handler, if anything; one that is let in counts until its exchange is over. */
function refuse (exchange: Exchange, reply: FastifyReply): Error | null {
  const { setup: { options, admitted } } = exchange
  const carrier = carrierOf(exchange, reply)
  const { framingError, requestFraming } = carrier
  exchange.send = reply.send
  reply.send = noteAnswer
  const onTimeout = hooksOf(reply, 'onTimeout')
  if (onTimeout.length > 0) carrier.onIdleTimeout = () => { runHooks(onTimeout, reply.request, reply) }
  if (framingError !== null) return framingError
  try {
    authorityOf(exchange, reply.request.raw)
  } catch (error) {
    return error as Error
  }
  if (requestFraming.length > options.bodyLimit) return new BodyLimitError(options.bodyLimit)
  if (options.maxExchanges === Infinity) return null
  if (admitted.count >= options.maxExchanges) {
    reply.header('retry-after', RETRY_AFTER)
    return new TooManyExchangesError(options.maxExchanges)
  }
  if (!carrier.over) {
    admitted.count++
    carrier.onOver = () => { admitted.count-- }
  }
  return null
}

/**
 * Between `reply.send()` and the head there may be hooks that take their time, in which nothing else tells of it. One
 * function for all replies: with one for each, V8 was seen to hold every exchange until the next full collection.
 */
function noteAnswer (this: FastifyReply, payload?: unknown): FastifyReply {
  const exchange = (this.request.raw as DuplexRequest)[kExchange]!
  // Nothing can be answered: what has failed may be the very answer that hooks are still running for.
  if (exchange.carrier!.failure !== null) return this
  exchange.carrier!.answering = true
  if (!exchange.answersFailure) return exchange.send!.call(this, payload)
  // Fastify would throw from a handler's own, late `send`, or run the onSend hooks twice.
  if (exchange.failureAnswered || isInOnError(this)) return this
  const isLast = endsErrorHandling(this, payload)
  exchange.send!.call(this, payload)
  if (isLast) exchange.failureAnswered = true
  return this
}

/** Makes Fastify log why an exchange failed: "request errored" takes the error of the last onResponse hook. */
function passFailure (request: FastifyRequest, _reply: FastifyReply, done: Done): void {
  done((request.raw as DuplexRequest)[kExchange]!.carrier?.failure)
}

/**
 * The onRoute hook that comes before those of other plugins: what they wrap around the handler (the span of a tracer, for
 * example) then spans the whole run of a generator, and not just the call that makes it.
 */
export function runGenerators (route: RouteOptions): void {
  const { duplex, handler } = route as { duplex?: unknown, handler: Hook }
  if (!duplex || !(handler instanceof AsyncGeneratorFunction)) return
  route.handler = like(handler, function (request, reply) {
    return stream(handler.call(this, request, reply) as AsyncIterable<unknown>, request, reply)
  })
}

const AsyncGeneratorFunction = Object.getPrototypeOf(async function * () {}).constructor

type Handler = (this: FastifyInstance, request: FastifyRequest, reply: FastifyReply) => any

/** Gives a handler the name of the one it wraps, by which tracers call their spans, and what others have noted on that. */
function like (wrapped: Hook, handler: Handler): Handler {
  const { prototype, ...own } = Object.getOwnPropertyDescriptors(wrapped)
  return Object.defineProperties(handler, own)
}

// @fastify/websocket wraps handlers as (request, reply), and reads request.raw: the signature must stay.
function runHandler (handler: Hook): Handler {
  return like(handler, function (request, reply) {
    const exchange = (request.raw as DuplexRequest)[kExchange]!
    let result
    try {
      result = handler.call(this, request, reply)
    } catch (error) {
      return onThrow(exchange, reply, error as Error)
    }
    if (isAsyncIterable(result, exchange)) result = stream(result, request, reply)
    if (isPromise(result) && result !== reply as unknown) return settleHandler(result, exchange, request, reply)
    exchange.unattended = true
    exchange.stream?.settle()
    answerFailure(exchange, reply)
    return afterHead(exchange, result)
  })
}

async function settleHandler (result: PromiseLike<unknown>, exchange: Exchange, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  try {
    let value = await result
    if (isAsyncIterable(value, exchange)) value = await stream(value, request, reply)
    exchange.stream?.settle()
    if (exchange.answersFailure) return reply
    // Nobody has answered, and the exchange failed before it could be: that is the answer.
    if ((value === undefined || value === exchange.stream) && isFailedUnanswered(exchange, reply)) return onThrow(exchange, reply, exchange.stream!.errored!)
    return afterHead(exchange, value)
  } catch (error) {
    return onThrow(exchange, reply, error as Error)
  }
}

/** What a handler returns is its answer, unless the answer has begun: `reply.duplex.end()` returns the stream. */
function afterHead ({ stream }: Exchange, value: unknown): unknown {
  return stream?.headersSent || value === stream ? undefined : value
}

/** What a handler yields is the response body. */
async function stream (content: AsyncIterable<unknown>, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const { duplex } = reply
  if (request.method === 'HEAD') {
    await content[Symbol.asyncIterator]().return?.()
  } else if (content instanceof Readable) {
    return pipeline(content, duplex)
  } else {
    // A pipeline costs more than all the rest of a short exchange, for its AbortController above all.
    for await (const piece of content) {
      if (!duplex.write(piece)) await drained(duplex)
    }
  }
  duplex.end()
}

/** Settles when more may be written; rejects when nothing will be. */
async function drained (stream: Duplex): Promise<void> {
  if (!stream.closed) {
    await new Promise<void>((resolve) => {
      const settle = (): void => {
        stream.removeListener('drain', settle).removeListener('close', settle)
        resolve()
      }
      stream.on('drain', settle).on('close', settle)
    })
  }
  // Without an error when somebody else has answered.
  if (stream.destroyed) throw stream.errored ?? new HeadSentError()
}

/** A handler has failed. Before the head that is Fastify's to answer; after it the response can only be cut off. */
function onThrow ({ stream, answersFailure }: Exchange, reply: FastifyReply, error: Error): FastifyReply | undefined {
  if (stream === null) throw error
  const { failure } = stream
  if (answersFailure) {
    reply.log.debug({ err: error }, 'duplex handler failed after its exchange')
    return reply
  }
  if (failure !== null) {
    // The exchange had failed before; mostly that is what the handler tells now, in its own words.
    if (failure !== error) reply.log.debug({ err: error }, 'duplex handler failed after its exchange')
  } else if (!stream.headersSent && !stream.isDetached) {
    stream.destroy(error)
    throw error
  } else if (stream.writableFinished || stream.isDetached) {
    reply.log.error({ err: error }, 'duplex handler failed after its response')
  } else {
    stream.destroy(error)
  }
  return undefined
}

/**
 * A stream that failed before the head: the error is the answer, unless somebody else has one. A handler that listens to
 * the stream's errors, as a pipeline or a `for await` does, will; where it has returned, its listeners had their chance.
 */
function answerFailure (exchange: Exchange, reply: FastifyReply): void {
  if (!isFailedUnanswered(exchange, reply)) return
  const { stream, unattended } = exchange
  if (!unattended && stream!.listenerCount('error') > 1) return
  const answer = (): void => {
    if (!isFailedUnanswered(exchange, reply)) return
    exchange.answersFailure = exchange.carrier!.answering = true
    exchange.send!.call(reply, stream!.errored)
  }
  // After the other listeners, or the promises that such an error may settle.
  if (unattended) process.nextTick(answer)
  else setImmediate(answer)
}

function isFailedUnanswered ({ carrier, stream }: Exchange, reply: FastifyReply): boolean {
  return stream !== null && stream.errored !== null && stream.failure === null && !carrier!.answering && !reply.sent
}

/** One after the other, callbacks and promises alike. What they throw has nowhere to go. */
function runHooks (hooks: ((...args: unknown[]) => unknown)[], ...args: unknown[]): void {
  const left = hooks.values()
  const next = (): void => {
    const hook = left.next().value
    if (hook === undefined) return
    try {
      const result = hook(...args, next)
      if (isPromise(result)) result.then(next, next)
    } catch {
      next()
    }
  }
  next()
}

function isPromise (value: unknown): value is PromiseLike<unknown> {
  return typeof (value as PromiseLike<unknown> | null | undefined)?.then === 'function'
}

function isAsyncIterable (value: unknown, exchange: Exchange): value is AsyncIterable<unknown> {
  return typeof (value as AsyncIterable<unknown> | null | undefined)?.[Symbol.asyncIterator] === 'function' && value !== exchange.stream
}
