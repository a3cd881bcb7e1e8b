// The remote control of a handler: the commands of a test are what its code does.

import { once } from 'node:events'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { HttpDuplex } from '../../../types/index.d.ts'
import { resolvers } from '../../support/wire.ts'

type Order = { value: string } | { error: Error } | 'return'

export class Remote {
  /** Resolves when the handler runs. */
  readonly entered = resolvers()
  hasEntered = false
  reply!: FastifyReply
  request!: FastifyRequest
  /** All that was written to the response. */
  written = ''
  /** The handler has ended its response in order. */
  hasEnded = false
  trailersAreSet = false
  /** What was handed to `reply.send()`, or returned. */
  answers: string[] = []
  /** The content that was read. */
  read = ''
  /** How reading has ended: for good, or with an error. */
  readResult: 'end' | Error | null = null
  isLeaving = false
  private readonly orders: Order[] = []
  private wake = (): void => {}
  private readonly result = resolvers<unknown>()
  private reject!: (error: Error) => void

  get duplex (): HttpDuplex {
    return this.reply.duplex
  }

  // The handlers

  enter (request: FastifyRequest, reply: FastifyReply): void {
    this.request = request
    this.reply = reply
    this.hasEntered = true
    this.entered.resolve()
  }

  async run (request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
    const failed = new Promise<never>((resolve, reject) => { this.reject = reject })
    this.enter(request, reply)
    return Promise.race([this.result.promise, failed])
  }

  async * generate (request: FastifyRequest, reply: FastifyReply): AsyncGenerator<string> {
    this.enter(request, reply)
    while (true) {
      while (this.orders.length === 0) await new Promise<void>((resolve) => { this.wake = resolve })
      const order = this.orders.shift()!
      if (order === 'return') return
      if ('error' in order) throw order.error
      yield order.value
    }
  }

  // What they do

  private order (order: Order): void {
    this.orders.push(order)
    this.wake()
  }

  yield (value: string): void {
    this.written += value
    this.order({ value })
  }

  write (content: string): boolean {
    this.written += content
    return this.duplex.write(content)
  }

  end (): void {
    this.hasEnded = true
    this.duplex.end()
  }

  setTrailers (): void {
    this.duplex.setTrailers({ 'x-trailer': 'yes' })
    this.trailersAreSet = true
  }

  send (): void {
    this.answers.push('sent')
    this.reply.send('sent')
  }

  /** Somebody else, who has the raw response. */
  endRaw (): void {
    if (this.written === '') this.answers.push('')
    this.reply.raw.end()
  }

  return (isAnswer: boolean): void {
    if (isAnswer) this.answers.push('')
    if (this.reject === undefined) this.hasEnded = true // of a generator
    this.result.resolve(undefined)
    this.order('return')
  }

  returnValue (): void {
    this.answers.push('value')
    this.result.resolve('value')
  }

  throw (error: Error = new Error('thrown')): void {
    this.reject?.(error)
    this.order({ error })
  }

  /** The loop of the manuals, in the handler or, if that has returned, behind it. */
  async loop (isEcho: boolean): Promise<void> {
    const { duplex } = this
    try {
      for await (const chunk of duplex) {
        this.read += chunk
        if (isEcho && !this.hasEnded) {
          this.written += chunk
          if (!duplex.write(chunk)) await once(duplex, 'drain')
        }
        if (this.isLeaving) return
      }
      this.readResult = 'end'
    } catch (error) {
      this.readResult = error as Error
      this.reject?.(error as Error)
    }
  }

  flow (): void {
    this.duplex.on('data', this.onData)
    this.duplex.on('end', () => { this.readResult = 'end' })
  }

  stopFlow (): void {
    this.isLeaving = true
    this.duplex.removeListener('data', this.onData)
  }

  private readonly onData = (chunk: Buffer): void => { this.read += chunk }
}
