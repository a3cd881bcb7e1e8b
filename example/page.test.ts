// Uses the page as a person does, in a Chromium without a window. `npm run screenshot` also takes docs/page.png.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import Fastify, { type FastifyInstance } from 'fastify'
import duplex from 'fastify-duplex'
import { sse } from 'fastify-duplex/items'
import { type Page, chromium } from 'playwright-core'
import { demo } from './server.ts'

const BROWSERS = ['chromium', 'chromium-browser', 'google-chrome', 'chrome']
const executablePath = (process.env.PATH ?? '').split(delimiter)
  .flatMap((directory) => BROWSERS.map((name) => join(directory, name))).find(existsSync)
const skip = executablePath === undefined ? 'Chromium is not installed' : false

async function start (t: TestContext): Promise<{ app: FastifyInstance, address: string }> {
  const app = Fastify()
  t.after(() => app.close())
  await app.register(duplex)
  await app.register(demo)
  return { app, address: await app.listen({ port: 0, host: '127.0.0.1' }) }
}

async function openPage (t: TestContext, address: string, colorScheme: 'light' | 'dark', width: number): Promise<{ page: Page, faults: string[] }> {
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] })
  t.after(() => browser.close())
  const page = await browser.newPage({ colorScheme, viewport: { width, height: 900 } })
  const faults: string[] = []
  page.on('pageerror', ({ message }) => faults.push(message))
  page.on('console', (message) => { if (message.type() === 'error') faults.push(message.text()) })
  await page.goto(address)
  return { page, faults }
}

test('the page in a browser', { skip }, async (t) => {
  const { app, address } = await start(t)
  const { page, faults } = await openPage(t, address, 'light', 1100)
  await page.locator('#state', { hasText: '1 open exchange,' }).waitFor()
  for (const name of ['echo', 'import', 'agent']) await page.click(`[data-start=${name}]`)
  for (const route of ['/echo', '/import', '/agent']) {
    const row = page.locator('#open tr', { hasText: `POST ${route}` })
    await row.filter({ hasText: 'both' }).filter({ hasText: 'chunked / chunked' }).waitFor()
  }
  // A word comes back before the next one is sent.
  const echo = page.locator('.talk', { hasText: 'echo' })
  await echo.locator('.down', { hasText: 'back' }).waitFor()
  const said = await echo.locator('span').allTextContents()
  assert.deepEqual(said.slice(0, 4).map((line) => line.replace('\u00a0', ' ')), ['↑ Each', '↓ Each', '↑ word', '↓ word'])
  if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT })

  for (const name of ['echo', 'import', 'agent']) await page.locator('.talk', { hasText: name }).locator('small', { hasText: 'complete' }).waitFor()
  assert.match((await page.locator('.talk', { hasText: 'import' }).textContent())!, /"ok":true.*"ok":false.*trailers: {"x-imported":"4","x-refused":"1"}/)
  assert.match((await page.locator('.talk', { hasText: 'agent' }).textContent())!, /tool_call.*tool_result.*"done"/)
  assert.match((await page.locator('#log').textContent())!, /\/echo finish, \d+ ms, \d+ up, \d+ down/)
  assert.deepEqual(faults, [])

  // When the page is closed, a conversation goes on to its end, and the feed ends at once.
  await page.click('[data-start=echo]')
  await page.locator('#open tr', { hasText: 'POST /echo' }).waitFor()
  await page.close()
  while (app.duplex.exchanges().length > 0) await new Promise(setImmediate)
})

test('the page on a phone, in the dark', { skip }, async (t) => {
  const { address } = await start(t)
  const { page, faults } = await openPage(t, address, 'dark', 360)
  await page.click('[data-start=agent]')
  await page.locator('.talk .down').first().waitFor()
  const { content, screen, ink } = await page.evaluate('({ content: document.documentElement.scrollWidth, screen: innerWidth, ink: getComputedStyle(document.body).color })') as { content: number, screen: number, ink: string }
  assert.ok(content <= screen, `the page is ${content - screen} pixels too wide`)
  assert.equal(ink, 'rgb(228, 232, 238)')
  assert.deepEqual(faults, [])
})

test('what the page may do is bounded', async (t) => {
  const { app, address } = await start(t)
  const page = await fetch(address)
  assert.match(page.headers.get('content-security-policy')!, /^default-src 'none'; connect-src 'self';.*script-src 'sha256-/)
  const post = async (name: string, headers = {}): Promise<number> => (await app.inject({ method: 'POST', url: `/start/${name}`, headers: { host: '127.0.0.1', ...headers } })).statusCode
  assert.equal(await post('echo', { 'sec-fetch-site': 'cross-site' }), 403)
  assert.equal(await post('echo', { host: 'rebound.example' }), 403)
  assert.equal((await app.inject({ url: '/', headers: { host: 'rebound.example' } })).statusCode, 403)
  assert.equal(await post('nothing'), 400)
  for (let conversations = 0; conversations < 6; conversations++) assert.equal(await post('echo'), 202)
  assert.equal(await post('echo'), 503)

  const feeds = []
  for (let pages = 0; pages < 6; pages++) {
    const feed = await app.injectDuplex({ url: '/events', headers: { host: '127.0.0.1' }, receive: sse({}) })
    assert.equal((await feed.response).statusCode, 200)
    feeds.push(feed)
  }
  assert.equal((await app.inject({ url: '/events', headers: { host: '127.0.0.1' } })).statusCode, 503)
  for (const feed of feeds) feed.on('error', () => {}).destroy()
  // The conversations that still run end with the server.
})

test('shows no exchanges of other apps in this process', async (t) => {
  const { app } = await start(t)
  const other = Fastify()
  t.after(() => other.close())
  await other.register(duplex)
  other.post('/other', { duplex: true }, async function * (request, reply) { yield * reply.duplex })
  const feed = await app.injectDuplex({ url: '/events', headers: { host: '127.0.0.1' }, receive: sse({}) })
  await other.inject({ method: 'POST', url: '/other', payload: 'abc' })
  await app.inject({ method: 'POST', url: '/start/echo', headers: { host: '127.0.0.1' } })
  const seen = new Set<string>()
  for await (const item of feed.items) {
    const { type, route, event } = item as Record<string, string>
    if (type === 'life') seen.add(`${route} ${event}`)
    if (seen.has('/echo head')) break
  }
  assert.ok(![...seen].some((line) => line.startsWith('/other')))
  feed.on('error', () => {}).destroy()
})
