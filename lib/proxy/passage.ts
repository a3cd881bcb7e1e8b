// One exchange on its way to the upstream server and back: what comes in on one side is written to the other, under backpressure,
// and each side is told how the other has ended.

import type { FastifyReply, FastifyRequest } from 'fastify'
import type { InterimHead, ResponseHead } from '../../types/client.d.ts'
import type { ForwardedResponse, ProxyOptions } from '../../types/proxy.d.ts'
import type { OutgoingFields } from '../../types/transfer.d.ts'
import type { Call } from '../client/call.ts'
import { UpstreamError } from '../errors.ts'
import type { HttpDuplex } from '../exchange/http-duplex.ts'
import { DirectRelay } from '../relay/relay.ts'
import { interimFields, responseFields, trailersToPass } from './fields.ts'
import { checkedResult } from './rewrite.ts'

/** What a reply had before the head of the upstream server was put into it. */
interface Before { readonly statusCode: number, readonly fields: readonly (readonly [name: string, value: OutgoingFields[string]])[] }

export class Passage {
  private readonly request: FastifyRequest
  private readonly reply: FastifyReply
  private readonly duplex: HttpDuplex
  private readonly call: Call
  private readonly rewriteResponse: ProxyOptions['rewriteResponse']
  private before: Before | null = null

  constructor (request: FastifyRequest, reply: FastifyReply, call: Call, { rewriteResponse }: ProxyOptions) {
    this.request = request
    this.reply = reply
    this.duplex = reply.duplex as HttpDuplex
    this.call = call
    this.rewriteResponse = rewriteResponse
  }

  /** @returns a promise that resolves when the exchange is over. If it has failed, the stream has the error, which is answered if it can be */
  run (): Promise<void> {
    const { call, duplex } = this
    call.on('information', (head: InterimHead) => this.passInterimHead(head))
    call.on('response', (head: ResponseHead) => this.onResponse(head))
    call.on('error', (error) => this.fail(upstreamError(error)))
    // To read is to ask for the body: a client that expects a 100 gets it then.
    if (call.request.expectsContinue) call.on('continue', () => this.passRequest())
    else if (!call.request.offersSwitch || call.request.framing.kind !== 'none') this.passRequest()
    return new Promise((resolve, reject) => {
      // A client that has closed its connection may look as if it had only ended its side. If nothing is sent to it, nothing else tells.
      if (duplex.clientHasEnded) reject(this.request.signal.reason)
      duplex.halfCloseListener = reject
      duplex.once('close', () => {
        // When the client leaves, the server need not go on. And behind an early answer, nobody reads the rest of the request.
        call.destroy()
        if (!this.reply.sent) this.restoreReply()
        resolve()
        this.dropExchange()
      })
    })
  }

  /** Neither stream refers to the exchange any more: see `shortLived`. */
  private dropExchange (): void {
    this.call.dropUser()
    this.duplex.receiver = this.duplex.halfCloseListener = null
  }

  private passRequest (): void {
    const { duplex, call } = this
    const stop = (): void => {
      if (duplex.destroyed) return
      duplex.receiver = null
      duplex.unpipe(call)
      duplex.stopReading()
    }
    // Before the end of the request: the server has answered, and does not want the rest.
    call.on('finish', stop).on('close', stop)
    if (call.request.offersSwitch) {
      if (call.request.framing.kind !== 'none') this.holdTunnel()
      this.relayRequest(true)
    // A hook may read or watch the body, too.
    } else if (duplex.isRead || duplex.readableLength > 0) {
      duplex.on('end', () => this.endRequest()).pipe(call, { end: false })
    } else {
      this.relayRequest(false)
    }
  }

  private relayRequest (mayContinue: boolean): void {
    this.duplex.receiver = new DirectRelay(this.duplex, this.call, (content) => this.endRequest(content), mayContinue)
    this.duplex.receiveMore()
  }

  private endRequest (content?: Buffer): void {
    const { call } = this
    this.passTrailers()
    if (call.head === null) call.endBody(content)
    else call.end(content)
  }

  private passTrailers (): void {
    const { duplex, call } = this
    if (call.request.framing.kind === 'chunked' && !call.hasSentRequest) call.setTrailers(trailersToPass(duplex.trailers))
  }

  /** The client offers to switch protocols behind its body. The server may decide when it has that body: `onResponse` learns what follows. */
  private holdTunnel (): void {
    const { duplex, call } = this
    duplex.holdTunnel(() => {
      this.passTrailers()
      call.endBody()
    })
  }

  private passInterimHead ({ statusCode, headers }: InterimHead): void {
    if (statusCode !== 100) this.duplex.writeInformation(statusCode, interimFields(headers))
  }

  private onResponse (head: ResponseHead): void {
    const { duplex, call } = this
    try {
      this.passHead(head)
    } catch (error) {
      this.fail(error as Error)
      return
    }
    if (call.request.offersSwitch) this.passTunnel()
    call.receiver = new DirectRelay(call, duplex, (content) => this.endResponse(content))
    // The head is sent with the first content, unless that keeps the client waiting.
    setImmediate(() => this.flushHead())
  }

  private passTunnel (): void {
    const { duplex, call } = this
    if (duplex.receiver !== null) duplex.releaseTunnel()
    else if (call.isTunnel) this.passRequest()
  }

  private passHead ({ statusCode, statusMessage, headers }: ResponseHead): void {
    const { reply, request } = this
    let head: ForwardedResponse = { statusCode, headers: responseFields(headers) }
    if (this.rewriteResponse !== undefined) head = checkedResult('rewriteResponse', this.rewriteResponse(head, request, reply))
    const names = Object.keys(head.headers)
    // Copies: Fastify adds cookies to the array that is there.
    this.before = { statusCode: reply.statusCode, fields: names.map((name) => [name, copyOf(reply.getHeader(name))]) }
    reply.code(head.statusCode)
    for (const name of names) if (head.headers[name] !== undefined) reply.header(name, head.headers[name])
    if (statusCode === 101) reply.header('upgrade', headers.upgrade)
    if (request.raw.httpVersionMajor === 1 && head.statusCode === statusCode) reply.raw.statusMessage = statusMessage
  }

  private flushHead (): void {
    const { duplex } = this
    if (duplex.headersSent || duplex.destroyed) return
    try {
      duplex.flushHeaders()
    } catch (error) {
      this.fail(error as Error)
    }
  }

  private endResponse (content?: Buffer): void {
    const { duplex, call } = this
    if (duplex.destroyed) return
    const hasTrailers = Object.keys(call.trailers).length > 0
    if (hasTrailers) this.flushHead() // decides whether there can be trailers, unless it waits for onSend hooks
    const { response } = duplex.framing
    try {
      if (response === 'chunked' || (response === undefined && hasTrailers)) duplex.setTrailers(trailersToPass(call.trailers))
      duplex.end(content)
    } catch (error) {
      this.fail(error as Error) // other code has ended the response
    }
  }

  /** Before the response has begun, error handlers answer. Behind its head, only the cut connection can tell the client. */
  private fail (error: Error): void {
    this.duplex.destroy(error)
  }

  /** The answer to an error must not have the fields of the response, such as its content-encoding. */
  private restoreReply (): void {
    const { reply, before } = this
    if (before === null) return
    reply.code(before.statusCode)
    if (reply.request.raw.httpVersionMajor === 1) reply.raw.statusMessage = ''
    reply.removeHeader('upgrade')
    for (const [name, value] of before.fields) {
      reply.removeHeader(name)
      if (value !== undefined) reply.header(name, value)
    }
  }
}

function copyOf (value: OutgoingFields[string]): OutgoingFields[string] {
  return Array.isArray(value) ? [...value] : value
}

/** A response that is malformed is no fault of the client. */
function upstreamError (error: Error & { statusCode?: number }): Error {
  const { statusCode = 500 } = error
  return statusCode === 502 || statusCode === 504 ? error : new UpstreamError(error.message, { cause: error })
}
