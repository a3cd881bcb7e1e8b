// A NestJS app, created as in its `main.ts`. It has duplex routes on the Fastify instance of the adapter and in a controller.

import 'reflect-metadata'
import { once } from 'node:events'
import { register } from 'node:module'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import type { ArgumentsHost, ExceptionFilter, NestInterceptor } from '@nestjs/common' with { 'resolution-mode': 'import' }
import type { NestFastifyApplication } from '@nestjs/platform-fastify' with { 'resolution-mode': 'import' }
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Test } from 'tap'
import duplex from '../../lib/index.ts'
import type { FastifyDuplexOptions } from '../../types/index.d.ts'
import { type Line, type Served, type Transport, TLS, dial } from '../support/wire.ts'
import { upper } from './support.ts'

// tap's loader for TypeScript cannot resolve the patterns in the `exports` of @nestjs/common; Node's own resolution can.
const RESOLVE_NEST = `
  import { createRequire } from 'node:module'
  import { pathToFileURL } from 'node:url'
  export function resolve (specifier, context, next) {
    if (!specifier.startsWith('@nestjs/')) return next(specifier, context)
    return { url: pathToFileURL(createRequire(context.parentURL).resolve(specifier)).href, shortCircuit: true }
  }`
register(`data:text/javascript,${encodeURIComponent(RESOLVE_NEST)}`)

export interface Nest extends Pick<Served, 'connect' | 'log' | 'logged'> {
  app: NestFastifyApplication
  /** Names of the handlers and interceptors that have run. */
  seen: string[]
}

export interface NestOptions {
  transport?: Transport
  options?: FastifyDuplexOptions
  /** Install a global filter that answers with 418 instead of Nest's own filter. */
  filter?: boolean
}

export async function serveNest (t: Test, { transport = 'tcp', options = {}, filter = false }: NestOptions = {}): Promise<Nest> {
  // These packages are ES modules.
  const { Catch, Controller, ForbiddenException, Get, HttpCode, Module, Post, Req, Res, UseGuards, UseInterceptors } = await import('@nestjs/common')
  const { NestFactory } = await import('@nestjs/core')
  const { FastifyAdapter, RouteConfig } = await import('@nestjs/platform-fastify')
  const { tap } = await import('rxjs')
  const seen: string[] = []

  class Words {
    plain (): string {
      return 'plain'
    }

    async upper (request: FastifyRequest, reply: FastifyReply): Promise<void> {
      reply.duplex.on('shutdown', () => { reply.duplex.write('closing') })
      await pipeline(upper(request, reply), reply.duplex)
      seen.push('handler')
    }

    async * returned (reply: FastifyReply): AsyncGenerator<string> {
      for await (const chunk of reply.duplex) {
        if (String(chunk) === 'fail') throw new Error('failed')
        yield String(chunk).toUpperCase()
      }
    }

    async failed (reply: FastifyReply): Promise<void> {
      throw new Error(`not ${await text(reply.duplex)}`)
    }

    async cut (reply: FastifyReply): Promise<void> {
      const [chunk] = await once(reply.duplex, 'data')
      await new Promise((resolve) => { reply.duplex.write(chunk, resolve) })
      throw new Error('too late')
    }

    guarded (): void {
      seen.push('guarded handler')
    }

    intercepted (): void {
      seen.push('intercepted handler')
    }
  }

  const isDuplex = RouteConfig({ duplex: true })
  const recordsEnd: NestInterceptor = { intercept: (context, next) => next.handle().pipe(tap(() => { seen.push('interceptor') })) }
  const refuses: NestInterceptor = { intercept () { throw new ForbiddenException('no') } }
  // Decorators are applied by hand, because the tests are compiled without decorator syntax.
  const decorate = (name: keyof Words, ...decorators: MethodDecorator[]): void => {
    for (const decorator of decorators) decorator(Words.prototype, name, Object.getOwnPropertyDescriptor(Words.prototype, name)!)
  }
  decorate('plain', Get('plain'))
  decorate('upper', Post('upper'), HttpCode(200), isDuplex, UseInterceptors(recordsEnd))
  decorate('returned', Post('returned'), HttpCode(200), isDuplex)
  decorate('failed', Post('failed'), isDuplex)
  decorate('cut', Post('cut'), HttpCode(200), isDuplex)
  decorate('guarded', Post('guarded'), isDuplex, UseGuards({ canActivate: () => false }))
  decorate('intercepted', Post('intercepted'), isDuplex, UseInterceptors(refuses))
  Req()(Words.prototype, 'upper', 0)
  Res()(Words.prototype, 'upper', 1)
  Res({ passthrough: true })(Words.prototype, 'returned', 0)
  Res()(Words.prototype, 'failed', 0)
  Res()(Words.prototype, 'cut', 0)
  Controller('words')(Words)
  class App {}
  Module({ controllers: [Words] })(App)

  class Teapot implements ExceptionFilter {
    catch (error: Error, host: ArgumentsHost): void {
      host.switchToHttp().getResponse<FastifyReply>().status(418).send({ said: error.message })
    }
  }
  Catch()(Teapot)

  const log: Line[] = []
  const waiting: [string, (line: Line) => void][] = []
  const stream = {
    write (text: string) {
      const line: Line = JSON.parse(text)
      log.push(line)
      for (const [msg, resolve] of waiting.splice(0)) {
        if (line.msg === msg) resolve(line)
        else waiting.push([msg, resolve])
      }
    }
  }
  const fastifyOptions = { logger: { stream }, forceCloseConnections: true, ...(transport === 'tls' ? { https: TLS } : {}) }
  const app = await NestFactory.create<NestFastifyApplication>(App, new FastifyAdapter(fastifyOptions), { logger: false })
  t.teardown(() => app.close())
  if (filter) app.useGlobalFilters(new Teapot())
  const fastify = app.getHttpAdapter().getInstance()
  // Turns a method of a controller into a duplex route. The plugin's own onRoute hook must run after this one.
  fastify.addHook('onRoute', (route) => {
    const { duplex } = (route.config ?? {}) as { duplex?: boolean }
    if (duplex !== undefined) route.duplex = duplex
  })
  await app.register(duplex, { closeGrace: 0, ...options })
  fastify.post('/upper', { duplex: true }, upper)
  fastify.post('/failed', { duplex: true }, async () => { throw new Error('not this one') })
  fastify.get('/plain', async () => 'plain')
  await app.listen(0, '127.0.0.1')
  const { port } = app.getHttpServer().address() as AddressInfo
  return {
    app,
    seen,
    log,
    logged: (msg) => new Promise((resolve) => { waiting.push([msg, resolve]) }),
    async connect () {
      const wire = await dial(transport, { port, host: '127.0.0.1' })
      t.teardown(() => wire.socket.destroy())
      return wire
    }
  }
}
